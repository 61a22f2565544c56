"""The command line. Each command imports what it needs when it runs: help and the coordinator come without torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from . import __version__
from .config import ClientSettings, CoordinatorSettings, FedServerSettings, SplitServerSettings
from .errors import MicrosflError
from .launch.options import role_command

INTERRUPTED = 130  # 128 + SIGINT, as shells report it

ASSIGNMENTS = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting, as in --set run.rounds=10. May be repeated.",
)
CONFIG = click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="microsfl")
def cli() -> None:
    """Split federated learning on stateless split servers.

    `microsfl run` trains on this machine, with real processes and real data; the other commands start one role each.
    """


@cli.command()
@CONFIG
@ASSIGNMENTS
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Run folder, new or empty; default: runs/NAME-DATE-TIME.",
)
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of the table.")
def run(config: Path | None, assignments: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Train on this machine and write a run folder.

    Starts all roles as processes, shows the progress, and ends with a table, plots and the trained model.

    Settings come from CONFIG (TOML) and --set; `microsfl config --show` lists them.
    """
    from .launch.spec_file import read_spec
    from .launch.table import print_results
    from .launch.training import train

    summary, rows, folder = train(read_spec(config, assignments), output)
    if as_json:
        click.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        print_results(summary, rows, folder)


@cli.command()
@CONFIG
@ASSIGNMENTS
@click.option("--show", is_flag=True, help="List every setting with its default, meaning and allowed values.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
def config(config: Path | None, assignments: tuple[str, ...], show: bool, as_json: bool) -> None:
    """Check and print a configuration, or list all settings.

    Every `auto` that decides a result is printed as the value that it stands for.
    """
    from .launch.reference import as_toml, settings_reference
    from .launch.spec_file import read_spec, to_toml

    if show and (config or assignments):
        raise click.UsageError("--show lists the defaults; it goes without CONFIG and --set.")
    if show:
        entries = settings_reference()
        shown = json.dumps([vars(one) for one in entries], indent=2) if as_json else as_toml(entries)
    else:
        from .launch.preflight import resolve

        resolved = resolve(read_spec(config, assignments))
        shown = json.dumps(resolved.model_dump(mode="json"), indent=2) if as_json else to_toml(resolved)
    click.echo(shown.rstrip("\n"))


@role_command(cli, "coordinator", CoordinatorSettings)
def coordinator(settings: CoordinatorSettings) -> None:
    """Start the coordinator: runs, rounds and metrics.

    It keeps its records in a database and never sees a tensor.
    """
    from .services.coordinator import main

    main(settings)


@role_command(cli, "split-server", SplitServerSettings)
def split_server(settings: SplitServerSettings) -> None:
    """Start a split server: computes the body, keeps no state.

    Start as many as you like on one store; any of them can go at any moment.
    """
    from .services.split_server import main

    main(settings)


@role_command(cli, "fed-server", FedServerSettings)
def fed_server(settings: FedServerSettings) -> None:
    """Start the fed server: averages client-side models."""
    from .services.fed_server import main

    main(settings)


@role_command(cli, "client", ClientSettings)
def client(settings: ClientSettings) -> None:
    """Start a client: holds data, labels, front and tail.

    One process can host several clients. It makes outbound connections only.
    """
    from .client.agent import main

    main(settings)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 2 for input that is wrong, 1 when the surroundings failed, 130 after Ctrl-C."""
    # A user's own models and data sets stand in the working directory, which `python -m` would look into as well.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: Sequence[str] | None) -> int:
    try:
        done: Any = cli.main(arguments, prog_name="microsfl", standalone_mode=False)
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
