"""One cell: its run, simulated or with real services, and what it came to as one JSON object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import MicrosflError, NotFinite
from ..spec import RunSpec
from ..zoo.parts import build_parts, client_side
from .flops import count_flops
from .measures import diverged_in, round_rows, spared_share

FINISHED, DIVERGED, FAILED = "finished", "diverged", "failed"

Json = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]
# From a resolved specification to its rounds and metrics, as the coordinator's API has them.
Run = Callable[[RunSpec], tuple[Rows, Rows]]


def simulated(on_round: Callable[[int], None]) -> Run:
    """Runs in this process; `on_round` is called with the number of rounds that are over."""

    def run(spec: RunSpec) -> tuple[Rows, Rows]:
        from ..simulate import simulate

        done = simulate(spec, on_round=lambda row, _: on_round(int(row["round"]) + 1), is_resolved=True)
        return done.rounds, done.metrics

    return run


def with_services(folder: Path) -> Run:
    """Runs as `microsfl run` does, in the run folder `folder`."""

    def run(spec: RunSpec) -> tuple[Rows, Rows]:
        from ..launch.training import train

        summary, metrics, _ = train(spec, folder)
        return summary["history"], metrics

    return run


def result_of(identity: str, spec: RunSpec, run: Run) -> tuple[Json, list[Json]]:
    """The content of the cell's result.json, and its metrics: whatever goes wrong is in the result, with the reason.

    spec: resolved.
    """
    try:
        rounds, metrics = run(spec)
        rows = [dict(row) for row in metrics]
        diverged = diverged_in(rows)
        if diverged is not None:
            return _unfinished(identity, DIVERGED, f"the test loss is not finite after round {diverged + 1}"), rows
        parts = build_parts(spec, [spec.model.name])
        flops = count_flops(spec, parts, client_side(spec, parts).get("aux"))
        result = {
            **_unfinished(identity, FINISHED, None),
            "rounds": round_rows(spec, rounds, rows, flops),
            "spared_share": spared_share(spec, rows, flops),
            "flops_per_sample": vars(flops),
            "spec": spec.model_dump(mode="json"),
        }
        return result, rows
    except NotFinite as error:
        return _unfinished(identity, DIVERGED, str(error)), []
    except MicrosflError as error:
        return _unfinished(identity, FAILED, str(error)), []


def failure(identity: str, reason: str) -> Json:
    """The result of a cell whose process ended."""
    return _unfinished(identity, FAILED, reason)


def _unfinished(identity: str, state: str, reason: str | None) -> Json:
    return {"id": identity, "state": state, "reason": reason, "rounds": [], "spared_share": None}
