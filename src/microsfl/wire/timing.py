"""How long a server had a request, by phases: the header `Server-Timing` of its answers (docs/reference/wire.md)."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..spec.names import ID_PATTERN

HEADER = "server-timing"
PHASES = ("queue", "decode", "compute", "store", "encode")

_MILLISECONDS = r"(\d{1,9}(?:\.\d{1,6})?)"
_VALUE = re.compile(
    ", ".join(rf"{phase};dur={_MILLISECONDS}" for phase in PHASES)
    + rf"(?:, server;desc=({ID_PATTERN}))?(?:, graph;desc=(hit|miss))?(?:, load;desc=(\d{{1,9}}))?(?:,.*)?",
    re.ASCII,
)


class Timing(NamedTuple):
    """Seconds of one request on its server, each in one phase.

    server: the id under which it is registered, or "". graph: whether a backward found the autograd graph of its
    forward ("hit") or the forward was computed again ("miss"); "" where there was nothing to find. load: requests that
    were at the server when it answered, besides this one.
    """

    queue: float
    decode: float
    compute: float
    store: float
    encode: float
    server: str = ""
    graph: str = ""
    load: int = 0

    @property
    def seconds(self) -> float:
        """In all phases."""
        return self.queue + self.decode + self.compute + self.store + self.encode

    def header(self) -> str:
        """The header's value, in milliseconds as the header has them."""
        queue, decode, compute, store, encode, server, graph, load = self
        return (
            f"queue;dur={1e3 * queue:.4f}, decode;dur={1e3 * decode:.4f}, compute;dur={1e3 * compute:.4f}, "
            f"store;dur={1e3 * store:.4f}, encode;dur={1e3 * encode:.4f}"
            f"{', server;desc=' + server if server else ''}{', graph;desc=' + graph if graph else ''}"
            f"{f', load;desc={load}' if load else ''}"
        )


def read_timing(value: str | None) -> Timing | None:
    """What a header says; None unless it begins as `Timing.header` writes it. What a proxy adds to it is skipped."""
    found = _VALUE.fullmatch(value) if value is not None and len(value) <= 1000 else None
    if found is None:
        return None
    queue, decode, compute, store, encode, server, graph, load = found.groups("")
    return Timing(
        float(queue) / 1e3, float(decode) / 1e3, float(compute) / 1e3, float(store) / 1e3, float(encode) / 1e3,
        server, graph, int(load or 0),
    )  # fmt: skip
