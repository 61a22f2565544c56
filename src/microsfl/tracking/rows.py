"""What trackers are told: a round's figures by name, and a specification as text by setting."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..spec import RunSpec

Json = dict[str, Any]
Figures = dict[str, float]

# Of a round, as in the history in summary.json.
ROUND = ("accuracy", "accuracy_mean", "loss", "train_loss", "samples", "seconds", "samples_per_s")
# Columns of metrics.csv that are no figures: who and when.
NOT_FIGURES = ("round", "client", "started_at", "eval_started_at")
SECRET = re.compile(r"(://[^/\s:@\"']*):[^/\s@\"']+@|((?:password|passwd|pwd)=)[^&\s\"']*", re.IGNORECASE)


def round_figures(row: Mapping[str, Any]) -> Figures:
    """The figures of a round that is over, without those that there are not."""
    return {name: float(row[name]) for name in ROUND if row.get(name) is not None}


def client_figures(rows: Iterable[Mapping[str, Any]]) -> Figures:
    """<client>/<column of metrics.csv> -> value, of one round."""
    return {
        f"{row['client']}/{name}": float(value)
        for row in rows
        for name, value in row.items()
        if name not in NOT_FIGURES and value is not None
    }


def flat(spec: RunSpec) -> dict[str, str]:
    """table.setting -> value, as text: JSON, but for text itself. Passwords in URLs are left out."""
    found: dict[str, str] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                add(f"{prefix}.{name}" if prefix else name, inner)
        else:
            found[prefix] = without_secrets(value if isinstance(value, str) else json.dumps(value))

    add("", spec.model_dump(mode="json"))
    return found


def without_secrets(text: str) -> str:
    """`text` with every password in a URL masked."""
    return SECRET.sub(lambda m: f"{m[1]}:***@" if m[1] else f"{m[2]}***", text)
