"""Where a run is to happen: machines, links, a store and what it charges."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal

Spread = Literal["sticky", "random", "two"]


@dataclass(frozen=True)
class Prices:
    """Of a store, in US dollars: a request that writes or lists, one that reads, a GB (10^9 bytes) for a month, and a
    GB that leaves the store's data centre."""

    put: float = 0.0
    get: float = 0.0
    gb_month: float = 0.0
    gb_out: float = 0.0


# Amazon S3 Standard in us-east-1: $0.005 for 1,000 PUT or LIST requests, $0.0004 for 1,000 GET requests, $0.023 a GB
# and month (the first 50 TB). Inside the region traffic is free. https://aws.amazon.com/s3/pricing/
S3 = Prices(put=0.005 / 1000, get=0.0004 / 1000, gb_month=0.023)


@dataclass(frozen=True)
class Site:
    """Speeds are in bytes a second, times in seconds.

    cores: of the one machine that everything shares; None: every client and every server has a machine of its own.
    client_speed, server_speed: how many times as fast a client, or the body on a split server, is as where it was
    measured. up, down, rtt: of a client's link. server_link: of each split server and of the fed server. store_latency:
    of a store's request, on top of what was measured; store_requests: that it takes in a second; store_link: its speed.
    """

    replicas: int
    cores: int | None = None
    processes: int | None = None
    client_speed: float = 1.0
    server_speed: float = 1.0
    up: float = inf
    down: float = inf
    rtt: float = 0.0
    server_link: float = inf
    store_latency: float = 0.0
    store_requests: float = inf
    store_link: float = inf
    spread: Spread = "sticky"
    prices: Prices = field(default_factory=Prices)

    @property
    def shared(self) -> bool:
        """Whether everything is on one machine."""
        return self.cores is not None
