"""The command that prints what makes a shell complete the others."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ..errors import OperationError
from .group import cli

# bash would put a blank behind the KEY= of a setting, where the value belongs.
BASH = ("COMPREPLY+=($value)", "COMPREPLY+=($value); [[ $value == *= ]] && compopt -o nospace")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    For bash, once: microsfl completion bash > ~/.local/share/bash-completion/completions/microsfl
    """
    made = get_completion_class(shell)
    assert made is not None
    try:
        script = made(cli, {}, "microsfl", "_MICROSFL_COMPLETE").source()
    except RuntimeError as error:  # it asks bash for its version
        raise OperationError(f"The script cannot be made: {error}") from None
    click.echo(script.replace(*BASH) if shell == "bash" else script, nl=not script.endswith("\n"))
