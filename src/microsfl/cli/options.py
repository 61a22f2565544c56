"""Options and arguments that several commands have."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from ..config import ProcessSettings
from ..launch.options import option_of
from ..tracking import TRACKERS
from .completing import complete_setting

ASSIGNMENTS = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_setting,
    help="Override one setting, as in --set run.rounds=10. May be repeated.",
)
OUTPUT = click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Run folder, new or empty; default: runs/NAME-DATE-TIME.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of the table.")
TRACK = click.option(
    "--track",
    multiple=True,
    type=click.Choice(TRACKERS),
    help="Write the run's figures there too, while it lives. May be repeated.",
)


def _place(context: click.Context, _: click.Parameter, on: str | None) -> None:
    context.meta[PLACED_ON] = on


def placed_on() -> str | None:
    """What the command that runs was given as `--on`."""
    found: str | None = click.get_current_context().meta[PLACED_ON]
    return found


PLACED_ON = "microsfl.placed_on"
ON = click.option(
    "--on",
    metavar="ray[:ADDRESS]",
    expose_value=False,
    callback=_place,
    help="Place the processes with Ray: ray starts a node here; ray://HOST:10001 (Ray client), ray:HOST:6379 and "
    "ray:auto join a cluster. Needs the extra microsfl[ray].",
)
CONFIG = click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))

OUTBOUND = ("tls_ca", "tls_client_cert", "tls_client_key", "insecure_http")

Given = ParamSpec("Given")
Result = TypeVar("Result")


def calls_a_coordinator(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a command with the flags that say whom this process trusts, and what it shows."""

    @wraps(function)
    def calling(*arguments: Given.args, **given: Given.kwargs) -> Result:
        from ..trust.tls import Outbound, using

        values: dict[str, Any] = {name: given.pop(name) for name in OUTBOUND}
        settings = ProcessSettings.parse({name: one for name, one in values.items() if one is not None})
        with using(Outbound.of(settings)):
            return function(*arguments, **given)

    there = list(getattr(function, "__click_params__", ()))
    fields = ProcessSettings.model_fields
    calling.__click_params__ = [  # type: ignore[attr-defined]
        *(option_of(name, fields[name]) for name in reversed(OUTBOUND)),
        *there,
    ]
    return calling


CREDENTIAL = click.option(
    "--credential",
    metavar="FILE",
    envvar="MICROSFL_CREDENTIAL",
    show_envvar=True,
    help="File of the credential to show to the coordinator; default: the one kept for it, where there is one.",
)

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Url(click.ParamType[str]):
    """http:// or https://, without the slash at its end."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.match(r"https?://[^/]", value):
            self.fail(f"'{value}' is not a URL; write it like http://host:8000.", param, ctx)
        return str(value).rstrip("/")


class Duration(click.ParamType[float]):
    """Seconds, from a number with its unit: 30m, 12h, 7d."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,9})([smhdw])", str(value))
        if found is None or not int(found[1]):
            self.fail(f"'{value}' is not a duration; write it like 30m, 12h or 7d.", param, ctx)
        return float(int(found[1]) * UNITS_S[found[2]])
