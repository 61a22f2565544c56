"""The options of `microsfl pretrain` and `microsfl audit-privacy`. Imports no torch, as the command line shows them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..spec import DEVICE_PATTERN

Command = Callable[..., Any]
Range = click.IntRange | click.FloatRange


def _device(_: click.Context, __: click.Parameter, value: str) -> str:
    if not re.match(DEVICE_PATTERN, value):
        raise click.BadParameter(f"'{value}' is none of cpu, cuda, cuda:NUMBER and auto.")
    return value


SEED = click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of all chance.")
DEVICE = click.option(
    "--device", default="cpu", show_default=True, callback=_device, help="Where to compute: cpu, cuda or auto."
)


def pretrain_options(command: Command) -> Command:
    """Fields of `pretrain_front.Options`, and the output file."""
    return _with(
        command,
        click.option(
            "--output",
            type=click.Path(dir_okay=False, path_type=Path),
            required=True,
            metavar="FILE",
            help="Safetensors file to write; model.front_weights names it in a run.",
        ),
        click.option(
            "--dataset", metavar="NAME", help="Public data set to train on; default: the run's own data.public."
        ),
        click.option("--path", metavar="DIR", help="Where that data set's files are."),
        _number("--epochs", click.IntRange(min=1), 40, "Passes over the data."),
        _number("--lr", click.FloatRange(min=0, min_open=True), 2e-3, "Learning rate of the front (Adam)."),
        click.option(
            "--adversary",
            type=click.Choice(["linear", "network"]),
            default="linear",
            show_default=True,
            help="Who tries to reconstruct: the best linear decoder of each batch, or a network that learns meanwhile.",
        ),
        _number("--adversarial-weight", click.FloatRange(min=0), 3.0, "Of its error in the front's loss; 0: none."),
        _number("--decoder-steps", click.IntRange(min=1), 1, "Of the network for one of the front."),
        click.option(
            "--noise",
            "noise_std",
            type=click.FloatRange(min=0),
            default=0.1,
            show_default=True,
            help="Standard deviation of the noise on the front's output.",
        ),
        SEED,
        DEVICE,
    )


def audit_options(command: Command) -> Command:
    """What `audit_run.audit_run` takes."""
    return _with(
        command,
        click.option(
            "--output",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Where to write privacy.md, privacy.json and privacy.png; default: the run folder.",
        ),
        click.option("--path", metavar="DIR", help="Where the data set's files are, if not where they were."),
        _number("--epochs", click.IntRange(min=1), 30, "Of each decoder."),
        _number("--samples", click.IntRange(min=20), 5000, "At most so many for the attacker, and so many victims."),
        SEED,
        DEVICE,
    )


def _number(name: str, kind: Range, default: float, text: str) -> Callable[[Command], Command]:
    return click.option(name, type=kind, default=default, show_default=True, help=text)


def _with(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
