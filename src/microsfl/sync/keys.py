"""Where each file of a run stands (docs/concepts/architecture.md). Ids are checked before they come here."""

from __future__ import annotations

from ..core.unit import UnitKey

BODY = "body"
CLIENT = "client"


def spec(run: str) -> str:
    return f"runs/{run}/run.json"


def run_of(path: str) -> str | None:
    """The run whose specification stands at `path`; None for any other path."""
    parts = path.split("/")
    return parts[1] if len(parts) == 3 and (parts[0], parts[2]) == ("runs", "run.json") else None


def area(run: str, area: str) -> str:
    return f"runs/{run}/{area}"


def version(run: str, area: str, number: int) -> str:
    return f"runs/{run}/{area}/{number}"


def commit(run: str, area: str, number: int) -> str:
    return f"{version(run, area, number)}/commit.json"


def seal(run: str, round_: int) -> str:
    return f"runs/{run}/rounds/{round_}/sealed.json"


def gradients(run: str, round_: int) -> str:
    return f"runs/{run}/rounds/{round_}/gradients"


def contribution(key: UnitKey) -> str:
    return f"{gradients(key.run, key.round)}/{key.client}/{key.unit}.safetensors"


def activations_of_round(run: str, round_: int) -> str:
    return f"runs/{run}/rounds/{round_}/activations"


def activations(key: UnitKey) -> str:
    return f"{activations_of_round(key.run, key.round)}/{key.client}/{key.unit}.safetensors"


def partials(run: str, round_: int) -> str:
    return f"runs/{run}/rounds/{round_}/partials"


def partial(run: str, round_: int, digest: str) -> str:
    return f"{partials(run, round_)}/{digest}.safetensors"


def updates(run: str, round_: int) -> str:
    return f"runs/{run}/rounds/{round_}/updates"


def update(run: str, round_: int, client: str) -> str:
    return f"{updates(run, round_)}/{client}.safetensors"


def unit_of(path: str) -> tuple[str, int]:
    """Client and number of the unit that wrote the contribution at `path`."""
    _, client, unit = path.rsplit("/", 2)
    return client, int(unit.removesuffix(".safetensors"))
