"""`python -m microsfl`: the same as the command `microsfl`."""

from .cli import main

main()
