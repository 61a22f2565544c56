"""How much of the speed of plain training is left: the paper's MLP on data of MNIST's shape.

`linear-front` of the zoo, 784 -> 64 | 64 -> 64 and ReLU | 64 -> 10; 60,000 samples in equal shares for 20 clients in
two processes, batches of 64, `sync = "round"`, two split servers, file store, one thread a process. Samples per second
of whole rounds (see `federated.round_speeds`) ÷ those of the limit (see `limit`) on one core, which is measured before
and after the federation, while nothing else runs; the fastest of its rounds counts. A repetition is a round.

    frozen front         front_update = "never": units of several batches, U-shaped
    trainable front      front, tail stepped each batch: one batch a unit, two requests a batch
    vanilla cut          the same without a tail: one request a batch
    fedavg               the whole model on the client, one upload a round
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from statistics import median
from typing import Any

import microsfl

from .federated import round_speeds
from .figures import Figure
from .limit import Limit

MNIST = "MICROSFL_BENCHMARK_MNIST"  # where MNIST's files are, if they are to be used

# (name, target, tables of the specification that are its own)
CASES: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("frozen front", 0.40, {"strategy": {"front_update": "never"}}),
    ("trainable front", 0.20, {}),
    ("vanilla cut", 0.30, {"model": {"u_shaped": False}}),
    ("fedavg", 0.80, {"strategy": {"name": "fedavg"}}),
)


def measure(quick: bool) -> Iterator[Figure]:
    with Limit(threads=1) as limit:
        for name, target, tables in CASES:
            spec = specification(tables, quick)
            before = limit.speeds(spec, 2 if quick else 3)
            speeds = round_speeds(spec)
            limits = [*before, *limit.speeds(spec, 2 if quick else 3)]
            reference = max(limits)
            yield Figure(
                f"MLP, {name}: samples/s ÷ limit on one core",
                tuple(speed / reference for speed in speeds),
                target,
                at_least=True,
                note=f"{median(speeds):,.0f} of {reference:,.0f} samples/s (at least {min(limits):,.0f})",
            )


def specification(tables: dict[str, Any], quick: bool) -> microsfl.RunSpec:
    path = os.environ.get(MNIST)
    name = "mnist_shaped_few" if quick and path is None else "mnist_shaped"
    return microsfl.RunSpec.parse(
        {
            "run": {"name": "throughput", "rounds": 3 if quick else 7},
            "data": {
                "dataset": f"benchmarks.data:{name}",
                "path": path,
                "clients": 20,
                "partition": "iid",
                "batch_size": 64,
            },
            "model": {"name": "linear-front", **tables.get("model", {})},
            "strategy": tables.get("strategy", {}),
            "servers": {"split": 2},
        }
    )
