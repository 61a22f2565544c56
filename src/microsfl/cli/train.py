"""The commands that train: run, resume and compare; and config, which says what they would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..launch.options import on_coordinator
from .completing import complete_folder
from .group import cli
from .options import AS_JSON, ASSIGNMENTS, CONFIG, CREDENTIAL, ON, OUTPUT, TRACK, calls_a_coordinator, placed_on

if TYPE_CHECKING:
    from ..launch.forks import Forks


@cli.command()
@CONFIG
@ASSIGNMENTS
@OUTPUT
@click.option("--simulate", is_flag=True, is_eager=True, help="In this process alone, without servers or a store.")
@on_coordinator
@CREDENTIAL
@ON
@TRACK
@AS_JSON
@calls_a_coordinator
def run(
    config: Path | None,
    assignments: tuple[str, ...],
    output: Path | None,
    simulate: bool,
    coordinator: str | None,
    credential: str | None,
    track: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train on this machine and write a run folder.

    Starts the roles as processes, shows the progress, and ends with a table, plots and the trained model. With
    --simulate the weights are the same, unless they depend on who is first (strategy.sync = K) or noise is private.

    With --on ray, Ray places split servers, fed server and clients, starts again what dies, and adds and removes split
    servers between ray.min and ray.max as the backlog needs. The coordinator stays here.

    Settings come from CONFIG (TOML) and --set; `microsfl config --show` lists them.
    """
    from ..launch.spec_file import read_spec

    source = click.get_current_context().get_parameter_source("credential")
    if not coordinator and source is ParameterSource.COMMANDLINE:
        raise click.UsageError("--credential is for --coordinator; a run on this machine makes its own.")
    if placed_on() and (coordinator or simulate):
        raise click.UsageError(
            f"--on places the processes of a run; {'--coordinator' if coordinator else '--simulate'} starts none."
        )
    if coordinator and track:
        raise click.UsageError("--track is for a run on this machine; with --coordinator nothing is tracked.")
    if coordinator:
        from ..launch.elsewhere import train_elsewhere

        results = train_elsewhere(coordinator, read_spec(config, assignments), output, credential)
    elif simulate:
        from ..simulate.training import train as simulated

        results = simulated(read_spec(config, assignments), output, track=track)
    else:
        from ..launch.training import train

        forks: Forks | None = click.get_current_context().obj
        results = train(read_spec(config, assignments), output, forks=forks, track=track, on=placed_on())
    _print(*results, as_json)


@cli.command()
@click.argument("target", metavar="RUN_FOLDER_OR_STORE_URL", shell_complete=complete_folder)
@click.option("--client-store", metavar="URL", help="Client area, when the URL is that of the body area alone.")
@click.option("--run", "name", metavar="NAME", help="Which run, when the store holds several.")
@click.option("--path", metavar="DIR", help="Where the data set's files are, if not where they were.")
@click.option("--front-weights", metavar="FILE", help="Where the file is that the front began with, likewise.")
@OUTPUT
@ON
@TRACK
@AS_JSON
def resume(
    target: str,
    client_store: str | None,
    name: str | None,
    path: str | None,
    front_weights: str | None,
    output: Path | None,
    track: tuple[str, ...],
    as_json: bool,
) -> None:
    """Go on with a run after everything died or was stopped.

    From a run folder, or on another machine from its store alone. No finished round is done again.
    """
    from ..launch.resuming import find
    from ..launch.training import train

    begun = find(target, client_store, name, path, front_weights)
    if begun.folder is not None and output is not None:
        raise click.UsageError("a run folder is resumed in place; --output goes with the URL of a store.")
    _print(*train(begun.spec, begun.folder or output, resume=True, track=track, on=placed_on()), as_json)


@cli.command()
@CONFIG
@ASSIGNMENTS
@click.option("--show", is_flag=True, help="List every setting with its default, meaning and allowed values.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
def config(config: Path | None, assignments: tuple[str, ...], show: bool, as_json: bool) -> None:
    """Check and print a configuration, or list all settings.

    Every `auto` that decides a result is printed as the value that it stands for.
    """
    from ..launch.reference import as_toml, settings_reference
    from ..launch.spec_file import read_spec, to_toml

    if show and (config or assignments):
        raise click.UsageError("--show lists the defaults; it goes without CONFIG and --set.")
    if show:
        entries = settings_reference()
        shown = json.dumps([vars(one) for one in entries], indent=2) if as_json else as_toml(entries)
    else:
        from ..launch.preflight import resolve

        resolved = resolve(read_spec(config, assignments))
        shown = json.dumps(resolved.model_dump(mode="json"), indent=2) if as_json else to_toml(resolved)
    click.echo(shown.rstrip("\n"))


@cli.command()
@CONFIG
@ASSIGNMENTS
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Output folder, new or empty, or that of the same comparison, to go on with it; default: "
    "runs/compare-DATE-TIME.",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Simulations at a time; default: as many as cores."
)
@click.option("--services", is_flag=True, help="Real processes over HTTP, a cell at a time, instead of simulations.")
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
def compare(
    config: Path | None,
    assignments: tuple[str, ...],
    output: Path | None,
    jobs: int | None,
    services: bool,
    as_json: bool,
) -> int:
    """Compare strategies on identical data and initial weights.

    CONFIG (TOML) is that of a run, plus a table [compare]: methods (strategies, or [compare.method.NAME] tables with
    settings of their own), partitions, clients, participants, seeds and target_accuracy. Each method runs with each of
    the others: a cell. Without CONFIG, every strategy runs with the default settings and three seeds.

    Cells are simulated, each in one process, unless --services is given. Writes tables, plots and what each cell
    came to. Stopped, it goes on when it is called again with the same --output. Exits with 1 when no cell finished.
    """
    from ..compare.command import compare as run_all
    from ..compare.config import read_comparison

    if services and jobs is not None:
        raise click.UsageError("--jobs is for simulations; with --services one cell runs at a time.")
    return run_all(read_comparison(config, assignments), output, jobs=jobs, services=services, as_json=as_json)


def _print(summary: dict[str, Any], rows: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    from ..launch.table import print_results

    if as_json:
        click.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        print_results(summary, rows, folder)
