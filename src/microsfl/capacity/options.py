"""The options of `microsfl plan`. Imports no torch, as the command line shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..errors import InvalidSetting
from .quantities import duration, frequency, rate

Command = Callable[..., Any]
FILE = click.Path(dir_okay=False, path_type=Path)


class Quantity(click.ParamType[float]):
    """A number with its unit."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name, self.parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return self.parse(str(value))
        except InvalidSetting as error:
            self.fail(str(error), param, ctx)


class Replicas(click.ParamType["int | str"]):
    """A number, or "auto"."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        if not str(value).isdigit() or not int(value):
            self.fail(f"'{value}' is neither a number above 0 nor auto.", param, ctx)
        return int(value)


RATE = Quantity("SPEED", rate)
DURATION = Quantity("DURATION", duration)
FREQUENCY = Quantity("FREQUENCY", frequency)
FACTOR = click.FloatRange(min=0, min_open=True)
PRICE = click.FloatRange(min=0)

OPTIONS = (
    click.option("--clients", type=click.IntRange(min=1), help="Clients; default: data.clients."),
    click.option(
        "--samples",
        type=click.IntRange(min=1),
        help="Train samples of each client; default: the data set, divided as the run divides it.",
    ),
    click.option(
        "--replicas",
        type=Replicas(),
        help="Split servers; auto: as many as --round-within or --utilisation need. Default: servers.split.",
    ),
    click.option(
        "--apart",
        is_flag=True,
        help="A machine for each client and each server, like this one but for the speeds below, which imply it. "
        "Default: all on this machine, as `microsfl run` does it.",
    ),
    click.option("--up", type=RATE, help="A client's link to the servers, as in 20Mbit/s."),
    click.option("--down", type=RATE, help="The link to it."),
    click.option("--rtt", type=DURATION, help="Round trip between a client and a server, as in 40ms."),
    click.option("--server-link", type=RATE, help="Link of each split server and of the fed server."),
    click.option("--client-speed", type=FACTOR, help="How many times as fast a client is as this machine, as in 0.25."),
    click.option("--server-speed", type=FACTOR, help="How many times as fast a split server computes the body."),
    click.option("--store-latency", type=DURATION, help="Of a request to the store, as in 20ms; default: a folder's."),
    click.option("--store-requests", type=FREQUENCY, help="Requests that the store takes, as in 3500/s; default: any."),
    click.option("--store-link", type=RATE, help="Speed of the store for all servers together; default: any."),
    click.option(
        "--spread",
        type=click.Choice(["sticky", "random", "two"]),
        help="How clients choose a split server; default: servers.spread.",
    ),
    click.option("--round-within", type=DURATION, help="What a round may take: for --replicas auto, as in 60s."),
    click.option(
        "--utilisation",
        type=click.FloatRange(0, 1, min_open=True),
        help="Share of the time that split servers may be busy, for --replicas auto; default there: 0.7.",
    ),
    click.option(
        "--prices",
        type=click.Choice(["folder", "s3"]),
        help="Of the store: a folder's, which are 0, or those of Amazon S3 Standard. Default: by store.body.",
    ),
    click.option("--price-put", type=PRICE, help="Dollars for 1,000 requests that write or list."),
    click.option("--price-get", type=PRICE, help="Dollars for 1,000 requests that read."),
    click.option("--price-gb-month", type=PRICE, help="Dollars for a GB (10^9 bytes) that is kept for a month."),
    click.option("--price-gb-out", type=PRICE, help="Dollars for a GB that goes to the clients."),
    click.option("--calibration", type=FILE, help="Take what --calibrate wrote, instead of measuring."),
    click.option("--calibrate", type=FILE, help="Measure, and write that to a file."),
    click.option(
        "--from-run",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="RUN_FOLDER",
        help="Take what a finished run on this machine took, instead of measuring.",
    ),
    click.option("--simulate", is_flag=True, help="Simulate a round event by event as well (microsfl[plan])."),
    click.option("--json", "as_json", is_flag=True, help="Print every number as JSON."),
)


def plan_options(command: Command) -> Command:
    """All of them, in this order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
