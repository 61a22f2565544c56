"""`microsfl doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from .. import __version__
from ..launch.readable import counted, plain
from . import machine, places
from .finding import Finding

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
COORDINATOR = "http://localhost:8000"


@dataclass(frozen=True)
class Asked:
    """What is to be checked besides this machine. coordinator: None for the usual address, where none need be."""

    stores: Sequence[str] = ()
    records: str | None = None
    coordinator: str | None = None


def examine(asked: Asked, *, as_json: bool) -> int:
    """Print what each check finds; the exit code, 1 when there is a problem."""
    findings = []
    for one in checks(asked, Path.cwd()):
        findings.append(one)
        if not as_json:
            _print(one)
    problems = sum(one.status == "problem" for one in findings)
    warnings = sum(one.status == "warning" for one in findings)
    if as_json:
        found = {"version": __version__, "problems": problems, "warnings": warnings}
        click.echo(json.dumps({**found, "findings": [vars(one) for one in findings]}, indent=2))
    else:
        click.echo(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
    return 1 if problems else 0


def checks(asked: Asked, folder: Path) -> Iterator[Finding]:
    """All of them, one after another."""
    yield from machine.python()
    yield from machine.torch()
    yield from machine.extras()
    yield from machine.ports()
    yield from machine.disk(folder)
    yield from machine.open_files()
    yield from places.here(folder)
    for url in asked.stores:
        yield from places.store(url)
    if asked.records is not None:
        yield from places.records(asked.records)
    url = (asked.coordinator or COORDINATOR).rstrip("/")
    yield from places.coordinator(url, named=asked.coordinator is not None)


def _print(one: Finding) -> None:
    status = click.style(f"{one.status:<8}", fg=COLOURS[one.status])
    click.echo(f"{status} {plain(one.check)}: {plain(one.found)}")
    if one.advice:
        click.echo(f"         {one.advice}")
