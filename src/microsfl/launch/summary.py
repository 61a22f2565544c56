"""summary.json: what a finished run came to, counted from the coordinator's records and from the commits themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..spec import RunSpec
from ..sync.commits import Chain, Commit

Json = dict[str, Any]


@dataclass(frozen=True)
class Settled:
    """How many commits of the body a run has, and contributions in them and left out by them; None is unknown."""

    commits: int
    contributions: int | None
    left_out: int | None


def settled_by(commits: Sequence[Commit]) -> Settled:
    """Counted in the commits themselves."""
    taken, left_out = (sum(len(getattr(one, name)) for one in commits) for name in ("contributions", "left_out"))
    return Settled(len(commits), taken, left_out)


def settled_in(rounds: Sequence[Json]) -> Settled:
    """Counted in the coordinator's rows, which know the last commit of each round and no other."""
    commits = rounds[-1]["body_version"] or 0
    if commits > len(rounds):
        return Settled(commits, None, None)
    taken, left_out = (sum(one[name] or 0 for one in rounds) for name in ("contributions", "left_out"))
    return Settled(commits, taken, left_out)


def commits_of(chain: Chain) -> list[Commit]:
    """The commits of a run's body, oldest first, without version 0, which is its start."""
    return [commit for commit in chain.back(chain.head()) if commit.parent is not None][::-1]


def summarize(
    spec: RunSpec,
    rounds: Sequence[Json],
    metrics: Sequence[Json],
    settled: Settled,
    model: Mapping[str, bytes],
    *,
    simulated: bool = False,
) -> Json:
    """The content of summary.json; None (null) stands for a mean over nothing.

    Args:
        rounds: of the coordinator, all of them over. metrics: its row for each round and client.
        settled: by the commits of the body. model: file content of front, body and tail, of the tail alone where it is
            the whole model, of nothing where the weights stay with the clients.
        simulated: in one process.
    """
    last, traits = rounds[-1], spec.strategy.traits
    samples, busy_s = sum(one["samples"] for one in rounds), sum(one["seconds"] for one in rounds)
    return {
        "version": __version__,
        "run": spec.run.name,
        "strategy": spec.strategy.name,
        "dataset": spec.data.dataset,
        "model": spec.model.name,
        "clients": spec.run_clients,
        "participants": spec.participants,
        "split_servers": spec.servers.split if traits.split else 0,
        "simulated": simulated,
        "rounds": len(rounds),
        "seed": spec.run.seed,
        "accuracy": last["accuracy"],
        "accuracy_mean": last["accuracy_mean"],
        "loss": last["loss"],
        "samples": samples,
        # Training and sync; `seconds` is the wall time from the first round's start to the end, with evaluations.
        "samples_per_s": samples / busy_s if busy_s > 0 else None,
        "seconds": last["ended_at"] - rounds[0]["started_at"],
        "bytes_up": traffic(metrics, "bytes_up"),
        "bytes_down": traffic(metrics, "bytes_down"),
        # What a strategy that sends every batch would have sent in addition.
        "bytes_saved": sum(row.get("bytes_saved") or 0 for row in metrics) if traits.auxiliary else None,
        "contributions": settled.contributions,
        "left_out": settled.left_out,
        "commits": settled.commits,
        "weights_sha256": {part: hashlib.sha256(content).hexdigest() for part, content in model.items()},
        "history": [_round(one) for one in rounds],
        "spec": spec.model_dump(mode="json"),
    }


def _round(row: Json) -> Json:
    names = ("round", "accuracy", "accuracy_mean", "loss", "train_loss", "samples", "seconds", "samples_per_s")
    return {name: row[name] for name in names}


def traffic(metrics: Sequence[Mapping[str, Any]], direction: str) -> int:
    """Bytes of all clients, in training and in evaluation. direction: "bytes_up" or "bytes_down"."""
    return sum((row[direction] or 0) + (row[f"eval_{direction}"] or 0) for row in metrics)
