"""What replicas add, with a simulated device of 50 ms a unit.

The body waits instead of computing (`models.waiting`): 20 ms in the forward of a unit and 30 ms in its backward, as if
every split server had an accelerator of its own. So 16 replicas can be measured on two cores, with all that happens
around the device for real: processes, HTTP, contributions in a file store, reduce, averaging.

16 clients in four processes, one batch a unit, U-shaped, `sync = "round"`, 1, 2, 4, 8 and 16 split servers. A round has
as many units for each replica, whatever their number (48 units, 2.4 s of the device), and its throughput is measured
as in `federated.round_speeds`. The ratio is that of n replicas ÷ (n × the fastest round of one replica); a repetition
is a round.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import microsfl

from .federated import round_speeds
from .figures import Figure

TARGETS = {2: 0.95, 4: 0.93, 8: 0.90, 16: 0.85}
QUICK = 8  # replicas of the only ratio that a quick run measures
BATCH = 8


def measure(quick: bool) -> Iterator[Figure]:
    rounds = 2 if quick else 6
    one = max(round_speeds(specification(1, rounds)))
    for replicas, target in TARGETS.items():
        if quick and replicas != QUICK:
            continue
        speeds = round_speeds(specification(replicas, rounds))
        yield Figure(
            f"simulated device, {replicas} replicas: throughput ÷ ({replicas} × one replica)",
            tuple(speed / (replicas * one) for speed in speeds),
            target,
            at_least=True,
            note=f"{median(speeds) / BATCH:.1f} units/s, one replica {one / BATCH:.1f}",
        )


def specification(replicas: int, rounds: int) -> microsfl.RunSpec:
    return microsfl.RunSpec.parse(
        {
            "run": {"name": "scaling", "rounds": rounds},
            "data": {"dataset": "benchmarks.data:vectors", "clients": 16, "partition": "iid", "batch_size": BATCH},
            "model": {"name": "benchmarks.models:waiting"},
            "strategy": {"local_epochs": replicas},
            "servers": {"split": replicas, "clients_per_process": 4},
        }
    )
