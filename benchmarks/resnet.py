"""What the split costs where computing dominates: ResNet-18 on 32x32 images, batches of 64, two clients.

The cut is the zoo's, after the first of the model's stages (stem | layer1 … pool | head): 16.8 MB of activations a
batch go up, and as much gradient comes down. Front, body and tail are trained: a unit is a batch, two requests each.

Threads: each of two clients is in a process and asks a split server of its own, and each process computes with one
thread. A client waits while its server computes and the other way round, so two cores are in use. The limit is one
process with two threads (torch's own parallelism over the same two cores), which trains the same batches. It is
measured right before and after the services, as such a machine's speed drifts by a quarter within minutes: samples
per second of a whole round (see `federated.round_speeds`) ÷ the median of the limit's rounds. A repetition is a round
of four batches a client: a batch takes a second or more, and the round's reduce and averaging (45 MB of weights) count.

The graph of such a batch is larger than the default bound of a split server's cache: `servers.graph_cache_mb` is set
to what two of them need.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import microsfl

from .federated import round_speeds
from .figures import Figure
from .limit import Limit

THREADS = 2
GRAPH_CACHE_MB = 4000
EPOCHS = 2  # of two batches, that a client trains in a round


def measure(quick: bool) -> Iterator[Figure]:
    spec = specification(quick)
    with Limit(THREADS) as limit:
        limits = limit.speeds(spec, 1)
        speeds = round_speeds(spec)
        limits += limit.speeds(spec, 1)
    reference = median(limits)
    yield Figure(
        "ResNet-18: samples/s ÷ limit with the same threads",
        tuple(speed / reference for speed in speeds),
        0.90,
        at_least=True,
        note=f"{median(speeds):.0f} of {reference:.0f} samples/s",
    )


def specification(quick: bool) -> microsfl.RunSpec:
    return microsfl.RunSpec.parse(
        {
            "run": {"name": "resnet", "rounds": 2 if quick else 6},
            "data": {
                "dataset": f"benchmarks.data:{'images_few' if quick else 'images'}",
                "clients": 2,
                "partition": "iid",
                "batch_size": 64,
            },
            "model": {"name": "resnet18"},
            "strategy": {
                "local_epochs": 1 if quick else EPOCHS,
                "client_optimizer": {"lr": 0.01},
                "body_optimizer": {"lr": 0.001},
            },
            "servers": {"split": 2, "graph_cache_mb": GRAPH_CACHE_MB},
        }
    )
