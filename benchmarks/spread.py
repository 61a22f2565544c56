"""How clients spread their units: `servers.spread` where they go evenly into the replicas, and where they do not.

The simulated device of `scaling`: 50 ms a unit on each of 4 split servers. 16 clients go evenly into 4. Of 10, which
each keep to one (`sticky`), two replicas have three and two have two, and the round waits for the former. The ratio is
the throughput of the power of two choices (`two`) ÷ that of `sticky`; a repetition is a round. `random` stands in the
note.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import microsfl
from microsfl.spec.names import Spread

from .federated import round_speeds
from .figures import Figure

REPLICAS = 4
TARGETS = {16: 0.97, 10: 1.05}  # clients -> at least
BATCH = 8
SPREADS: tuple[Spread, ...] = ("sticky", "random", "two")


def measure(quick: bool) -> Iterator[Figure]:
    rounds = 2 if quick else 6
    for clients, target in TARGETS.items():
        sticky, random, two = (
            [speed / BATCH for speed in round_speeds(specification(clients, spread, rounds))] for spread in SPREADS
        )
        yield Figure(
            f"{clients} clients, {REPLICAS} replicas: throughput with two choices ÷ sticky",
            tuple(speed / median(sticky) for speed in two),
            target,
            at_least=True,
            note=f"units/s: two {median(two):.1f}, sticky {median(sticky):.1f}, random {median(random):.1f}",
        )


def specification(clients: int, spread: Spread, rounds: int) -> microsfl.RunSpec:
    return microsfl.RunSpec.parse(
        {
            "run": {"name": "spread", "rounds": rounds},
            "data": {"dataset": "benchmarks.data:vectors", "clients": clients, "partition": "iid", "batch_size": BATCH},
            "model": {"name": "benchmarks.models:waiting"},
            "strategy": {"local_epochs": REPLICAS},
            "servers": {"split": REPLICAS, "clients_per_process": 4, "spread": spread},
        }
    )
