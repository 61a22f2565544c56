"""What it costs when a backward lands on a split server that has to compute the forward again.

ResNet-18's body on 32x32 images (batches of 16), one unit after the other over HTTP: forward and backward of a unit
by a server that has kept the graph, and, in turns, its forward by one server and its backward by another, which knows
the unit only from the store; these two keep no graphs at all. The ratio is the time of both requests on the second way
÷ on the first. It is (2 forwards + backward) ÷ (forward + backward) at best: 4/3 when a backward takes two forwards.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median
from typing import Any

import torch

import microsfl
from microsfl.client.choice import Choice
from microsfl.client.entitled import Ways
from microsfl.client.http import Http, Way
from microsfl.client.transport import SplitServers
from microsfl.wire.messages import Backward, Forward

from .figures import Figure
from .places import new_folder

RUN = "recompute"
BATCH = 16
ACTIVATIONS = (BATCH, 64, 32, 32)
FEATURES = 512
GRAPH_CACHE_MB = 2000
REPETITIONS = 7


def measure(quick: bool) -> Iterator[Figure]:
    with ExitStack() as stack:
        one, keeping = servers(stack, 1, GRAPH_CACHE_MB)
        other, forgetful = servers(stack, 2, 0)
        kept, again = Client(one, keeping[0], keeping[0]), Client(other, *forgetful)
        kept.unit(), again.unit()  # the first ones load the weights
        pairs = [(kept.unit(), again.unit()) for _ in range(2 if quick else REPETITIONS)]
        if health(keeping[0])["recomputed"] or health(forgetful[1])["graph_hits"]:
            raise ValueError("graphs were not kept, or were, against expectation")
    on, off = (median(times) for times in zip(*pairs, strict=True))
    yield Figure(
        "ResNet-18, backward on another split server ÷ where the graph is",
        tuple(off / on for on, off in pairs),
        1.45,
        at_least=False,
        note=f"{off:.2f} s instead of {on:.2f} s a unit",
    )


def servers(stack: ExitStack, count: int, graph_cache_mb: int) -> tuple[Way, list[str]]:
    """The split servers of a federation that ends with the stack: how they are asked, and their URLs."""
    spec = microsfl.RunSpec.parse(
        {
            "run": {"name": RUN, "managed": False},
            "data": {"dataset": "benchmarks.data:images", "clients": 1, "batch_size": BATCH},
            "model": {"name": "resnet18"},
            "servers": {"split": count, "graph_cache_mb": graph_cache_mb},
        }
    )
    folder = stack.enter_context(new_folder())
    federation = stack.enter_context(microsfl.Federation(spec, folder=folder / "run"))
    way = Ways.of(Http(), federation.coordinator).body
    return way, [str(child.address) for child in federation.children if child.role == "split-server"]


class Client:
    """Sends the forward of each unit to one server and its backward to the other."""

    def __init__(self, way: Way, first: str, second: str) -> None:
        self.first, self.second = (
            SplitServers(way, Choice("sticky", 0), lambda one=one: [one]) for one in (first, second)
        )  # type: ignore[misc]
        self.units = 0

    def unit(self) -> float:
        """Seconds for both requests of the next unit."""
        key: dict[str, Any] = {"run": RUN, "round": 0, "client": "client", "unit": self.units, "needs_grad": ("0",)}
        self.units += 1
        activations, gradients = {"0": torch.rand(ACTIVATIONS)}, {"0": torch.rand(BATCH, FEATURES)}
        began_at = time.perf_counter()
        there = self.first.forward(Forward(**key, activations=activations))
        self.second.backward(Backward(**key, version=there.version, gradients=gradients), activations)
        return time.perf_counter() - began_at


def health(server: str) -> dict[str, Any]:
    """What a server says of itself."""
    answer: dict[str, Any] = json.loads(Http().request("GET", lambda: [server], "/v1/health").data)
    return answer
