"""What a command asks a person for, when it was not given."""

from __future__ import annotations

import os
import sys
from typing import IO

import click

TOKEN = "MICROSFL_TOKEN"


def token(file: IO[str] | None) -> str:
    """The token of an invitation: from the file, the environment, a person at the terminal, or standard input.

    Raises:
        click.UsageError: when there is none.
    """
    if file is not None:
        found = file.read()
    elif os.environ.get(TOKEN):
        found = os.environ[TOKEN]
    elif sys.stdin.isatty():
        found = click.prompt("Token of the invitation", hide_input=True, err=True)
    else:
        found = sys.stdin.read()
    found = found.strip()
    if not found:
        raise click.UsageError(f"there is no token: name its file with --token-file, or set {TOKEN}.")
    return found
