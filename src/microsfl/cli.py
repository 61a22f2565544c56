"""The command line. Each command imports what it needs when it runs: help and the coordinator come without torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from . import __version__
from .audit.options import audit_options, pretrain_options
from .config import ClientSettings, CoordinatorSettings, FedServerSettings, SplitServerSettings
from .errors import MicrosflError
from .launch.options import role_command
from .launch.up_command import up
from .process import importing

if TYPE_CHECKING:
    from .launch.forks import Forks

INTERRUPTED = 130  # 128 + SIGINT, as shells report it

ASSIGNMENTS = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting, as in --set run.rounds=10. May be repeated.",
)
OUTPUT = click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Run folder, new or empty; default: runs/NAME-DATE-TIME.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of the table.")
CONFIG = click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))

TARGETS = click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
ONE_RUN = click.option("--run", "run", metavar="NAME", help="Only this run; default: every run in the stores.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="microsfl")
def cli() -> None:
    """Split federated learning on stateless split servers.

    `microsfl run` trains on this machine, with real processes and real data. coordinator, split-server, fed-server and
    client start one role each; the other commands compare runs, look after them, or say what they give away.
    """


@cli.command()
@CONFIG
@ASSIGNMENTS
@OUTPUT
@click.option("--simulate", is_flag=True, help="In this process alone, without servers or a store.")
@AS_JSON
@click.pass_obj
def run(
    forks: Forks | None,
    config: Path | None,
    assignments: tuple[str, ...],
    output: Path | None,
    simulate: bool,
    as_json: bool,
) -> None:
    """Train on this machine and write a run folder.

    Starts the roles as processes, shows the progress, and ends with a table, plots and the trained model. With
    --simulate the weights are the same, unless they depend on who is first (strategy.sync = K) or noise is private.

    Settings come from CONFIG (TOML) and --set; `microsfl config --show` lists them.
    """
    from .launch.spec_file import read_spec

    if simulate:
        from .simulate.training import train as simulated

        results = simulated(read_spec(config, assignments), output)
    else:
        from .launch.training import train

        results = train(read_spec(config, assignments), output, forks=forks)
    _print(*results, as_json)


@cli.command()
@click.argument("target", metavar="RUN_FOLDER_OR_STORE_URL")
@click.option("--client-store", metavar="URL", help="Client area, when the URL is that of the body area alone.")
@click.option("--run", "name", metavar="NAME", help="Which run, when the store holds several.")
@click.option("--path", metavar="DIR", help="Where the data set's files are, if not where they were.")
@click.option("--front-weights", metavar="FILE", help="Where the file is that the front began with, likewise.")
@OUTPUT
@AS_JSON
def resume(
    target: str,
    client_store: str | None,
    name: str | None,
    path: str | None,
    front_weights: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Go on with a run after everything died or was stopped.

    From a run folder, or on another machine from its store alone. No finished round is done again.
    """
    from .launch.resuming import find
    from .launch.training import train

    begun = find(target, client_store, name, path, front_weights)
    if begun.folder is not None and output is not None:
        raise click.UsageError("a run folder is resumed in place; --output goes with the URL of a store.")
    _print(*train(begun.spec, begun.folder or output, resume=True), as_json)


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
def compare(
    config: Path | None, assignments: tuple[str, ...], output: Path | None, jobs: int | None, services: bool
) -> int:
    """Compare strategies on identical data and initial weights.

    CONFIG (TOML) is that of a run, plus a table [compare]: methods (strategies, or [compare.method.NAME] tables with
    settings of their own), partitions, clients, participants, seeds and target_accuracy. Each method runs with each of
    the others: a cell. Without CONFIG, every strategy runs with the default settings and three seeds.

    Cells are simulated, each in one process, unless --services is given. Writes tables, plots and what each cell
    came to. Stopped, it goes on when it is called again with the same --output. Exits with 1 when no cell finished.
    """
    from .compare.command import compare as run_all
    from .compare.config import read_comparison

    if services and jobs is not None:
        raise click.UsageError("--jobs is for simulations; with --services one cell runs at a time.")
    return run_all(read_comparison(config, assignments), output, jobs=jobs, services=services)


@cli.command()
@TARGETS
@ONE_RUN
@click.option("--json", "as_json", is_flag=True, help="Print all findings as JSON.")
def verify(targets: tuple[str, ...], run: str | None, as_json: bool) -> int:
    """Check every file of a run: hashes, commits, contributions.

    TARGET is a run folder or the URL of a store. Each finding says what was expected, what was found and what to do.
    Exits with 1 when a file is damaged or missing; what is harmless is a note. Changes nothing.
    """
    from .launch.maintenance import verify_stores

    return verify_stores(targets, run, as_json=as_json)


@cli.command()
@TARGETS
@ONE_RUN
@click.option("--keep", type=int, default=2, show_default=True, help="Keep what the newest N rounds work with.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def gc(targets: tuple[str, ...], run: str | None, keep: int, dry_run: bool) -> None:
    """Remove files that no resume and no retry needs any more.

    TARGET is a run folder or the URL of a store. The run may be going on meanwhile.
    """
    from .launch.maintenance import collect_garbage

    collect_garbage(targets, run, keep, dry_run=dry_run)


@cli.command()
@click.argument("folder", metavar="RUN_FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw it: .png, .svg, .pdf."
)
@click.option("--json", "as_json", is_flag=True, help="Print all the numbers as JSON.")
def profile(folder: Path, plot: Path | None, as_json: bool) -> None:
    """Show where the time of a run went.

    Of each client, split server and fed server, and of each round: computing, waiting, wire, queue, store.
    """
    from .profile.command import profile as show

    show(folder, plot, as_json=as_json)


@cli.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@ASSIGNMENTS
@pretrain_options
def pretrain(config: Path, assignments: tuple[str, ...], output: Path, **options: Any) -> None:
    """Train the front on public data against a decoder.

    The model of CONFIG (TOML) learns its task while a decoder learns to reconstruct the inputs from the front's output
    and the front learns to prevent that. Only the front is kept: `model.front_weights = "FILE"` with
    `strategy.front_update = "never"` uses it, frozen, in a run.
    """
    from .audit.pretrain_front import Options, pretrain_front
    from .launch.spec_file import read_spec

    digest = pretrain_front(read_spec(config, assignments), output, Options(**options))
    click.echo(f"{digest}  {output}")


@cli.command("audit-privacy")
@click.argument("folder", metavar="RUN_FOLDER", type=click.Path(file_okay=False, path_type=Path))
@audit_options
@click.option("--json", "as_json", is_flag=True, help="Print privacy.json instead of the table.")
def audit_privacy(folder: Path, output: Path | None, as_json: bool, **options: Any) -> None:
    """Attack a finished run: what do smashed data and gradients give away?

    Trains a decoder to reconstruct inputs from the run's smashed data, measures their distance correlation, and infers
    labels from gradients. Writes a report that says what this shows and what it cannot.
    """
    from .audit.audit_run import audit_run, print_report

    report = audit_run(folder, output, **options)
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        print_report(report, output or folder)


cli.add_command(up)


@role_command(cli, "coordinator", CoordinatorSettings)
def coordinator(settings: CoordinatorSettings) -> None:
    """Start the coordinator: runs, rounds and metrics.

    It keeps its records in a database and never sees a tensor.
    """
    with importing():
        from .services.coordinator import main

    main(settings)


@role_command(cli, "split-server", SplitServerSettings)
def split_server(settings: SplitServerSettings) -> None:
    """Start a split server: computes the body, keeps no state.

    Start as many as you like on one store; any of them can go at any moment.
    """
    with importing():
        from .services.split_server import main

    main(settings)


@role_command(cli, "fed-server", FedServerSettings)
def fed_server(settings: FedServerSettings) -> None:
    """Start the fed server: averages client-side models."""
    with importing():
        from .services.fed_server import main

    main(settings)


@role_command(cli, "client", ClientSettings)
def client(settings: ClientSettings) -> None:
    """Start a client: holds data, labels, front and tail.

    One process can host several clients. It makes outbound connections only.
    """
    with importing():
        from .client.agent import main

    main(settings)


def _print(summary: dict[str, Any], rows: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    from .launch.table import print_results

    if as_json:
        click.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        print_results(summary, rows, folder)


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
