"""The command line. Each command imports what it needs when it runs: help and the coordinator come without torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..errors import MicrosflError

# Importing them adds their commands to the group.
from . import admin, audit, completion, doctor, plan, privacy, roles, store, train, watch  # noqa: F401
from .group import cli as cli

if TYPE_CHECKING:
    from ..launch.forks import Forks

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(arguments: Sequence[str] | None = None, forks: Forks | None = None) -> NoReturn:
    """Run the command line and exit: 0, 2 for input that is wrong, 1 when the surroundings failed, 130 after Ctrl-C.

    Args:
        forks: a fork server that imports already, for a command that starts processes.
    """
    # A user's own models and data sets stand in the working directory, which `python -m` would look into as well.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.exit(_exit_code(arguments, forks))


def _exit_code(arguments: Sequence[str] | None, forks: Forks | None) -> int:
    try:
        done: Any = cli.main(arguments, prog_name="microsfl", standalone_mode=False, obj=forks)
    except MicrosflError as error:
        return _complain(str(error), error.exit_code)
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except click.Abort:
        return INTERRUPTED
    return done if isinstance(done, int) else 0


def _complain(message: str, exit_code: int) -> int:
    click.echo(f"microsfl: error: {message}", err=True)
    return exit_code
