"""The commands about what a run gives away: pretrain and audit-privacy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..audit.options import audit_options, pretrain_options
from .group import cli
from .options import ASSIGNMENTS


@cli.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@ASSIGNMENTS
@pretrain_options
@click.option("--json", "as_json", is_flag=True, help="Print file and hash as JSON.")
def pretrain(config: Path, assignments: tuple[str, ...], output: Path, as_json: bool, **options: Any) -> None:
    """Train the front on public data against a decoder.

    The model of CONFIG (TOML) learns its task while a decoder learns to reconstruct the inputs from the front's output
    and the front learns to prevent that. Only the front is kept: `model.front_weights = "FILE"` with
    `strategy.front_update = "never"` uses it, frozen, in a run.
    """
    from ..audit.pretrain_front import Options, pretrain_front
    from ..launch.spec_file import read_spec

    digest = pretrain_front(read_spec(config, assignments), output, Options(**options))
    click.echo(json.dumps({"file": str(output), "sha256": digest}, indent=2) if as_json else f"{digest}  {output}")


@cli.command("audit-privacy")
@click.argument("folder", metavar="RUN_FOLDER", type=click.Path(file_okay=False, path_type=Path))
@audit_options
@click.option("--json", "as_json", is_flag=True, help="Print privacy.json instead of the table.")
def audit_privacy(folder: Path, output: Path | None, as_json: bool, **options: Any) -> None:
    """Attack a finished run: what do smashed data and gradients give away?

    Trains a decoder to reconstruct inputs from the run's smashed data, measures their distance correlation, and infers
    labels from gradients. Writes a report that says what this shows and what it cannot.
    """
    from ..audit.audit_run import audit_run, print_report

    report = audit_run(folder, output, **options)
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        print_report(report, output or folder)
