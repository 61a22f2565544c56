"""A run in one row: what `microsfl runs` lists and `microsfl status` begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..spec import TRAITS

COLUMNS = (
    "name", "state", "phase", "round", "rounds", "rounds_done", "strategy", "dataset", "clients", "accuracy", "loss",
    "reason", "created_at", "coordinator", "folder",
)  # fmt: skip

Json = dict[str, Any]


def row_of(run: Json, *, coordinator: str | None = None, folder: Path | None = None) -> Json:
    """The row of a run as a coordinator tells of it; null is what there is not (yet). Accuracy and loss are those of
    the last round that is over."""
    history = run["history"]
    last = history[-1] if history else {}
    values = {
        **{name: run[name] for name in ("name", "state", "phase", "round", "rounds", "reason", "created_at")},
        **_asked_for(run["spec"]),
        "rounds_done": len(history),
        "accuracy": last.get("accuracy"),
        "loss": last.get("loss"),
        "coordinator": coordinator,
        "folder": None if folder is None else str(folder),
    }
    return {name: values[name] for name in COLUMNS}


def _asked_for(spec: Json | None) -> Json:
    """What the specification says, once there is one."""
    if spec is None:
        return dict.fromkeys(("strategy", "dataset", "clients"))
    strategy = spec["strategy"]["name"]
    pooled = strategy in TRAITS and TRAITS[strategy].pooled
    clients = 1 if pooled else spec["data"]["clients"]
    return {"strategy": strategy, "dataset": spec["data"]["dataset"], "clients": clients}
