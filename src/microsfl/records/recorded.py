"""A run from its row in the database, with the names that the coordinator's JSON has for it."""

from __future__ import annotations

import json
from typing import Any

from .database import RunRecord
from .rows import Row

HISTORY = ("round", "accuracy", "accuracy_mean", "loss", "train_loss", "samples", "seconds", "samples_per_s")


def outliers_of(row: Row) -> dict[str, Any]:
    """Both lists of a round, and `outliers`: the clients in either, by name."""
    found = {name: json.loads(row.get(name) or "[]") for name in ("body_outliers", "client_outliers")}
    return {**found, "outliers": sorted({one["client"] for some in found.values() for one in some})}


def run_of(record: RunRecord, rounds: list[Row]) -> dict[str, Any]:
    """The run as it was left. What each client had to do is not told: nobody is there to do it."""
    state = json.loads(record.state)
    return {
        "name": record.name,
        "state": state["status"],
        "phase": state.get("phase"),
        "round": state.get("round", 0),
        "rounds": state["rounds"],
        "reason": state.get("reason"),
        "revision": record.revision,
        "clients": list(state.get("clients", ())),
        "progress": {},
        "away": list(state.get("away", ())),
        "spec": json.loads(record.spec),
        "history": [
            {**{name: row[name] for name in HISTORY}, "outliers": outliers_of(row)["outliers"]}
            for row in rounds
            if row["ended_at"]
        ],
        "created_at": record.created_at,
    }
