"""What a round moves, stores and asks for, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .demands import GROUP, SHARED_FROM
from .site import Prices, Site
from .workload import Workload

HEADER_BYTES = 400  # of a message, besides its tensors
HTTP_BYTES = 300
MONTH_S = 30 * 86_400.0


@dataclass(frozen=True)
class Volume:
    """Of one round, all clients together, if not said otherwise. up, down: bytes on the clients' links, headers
    included. client_up, client_down: the largest client's. requests: to split servers and fed server. files, stored:
    that stay in the store, and their bytes. puts, gets: requests to the store that write or list, and that read."""

    up: float
    down: float
    client_up: float
    client_down: float
    requests: int
    files: int
    stored: float
    puts: int
    gets: int


def volume(workload: Workload, site: Site) -> Volume:
    """What a round of training moves; evaluation is not in it."""
    traits, sizes = workload.spec.strategy.traits, workload.sizes
    crossings = [workload.crossing(one) for one in workload.train]
    fed_up, fed_down, fed_requests = workload.handed()
    each = [
        (
            up + fed_up + (HEADER_BYTES + HTTP_BYTES) * (requests + fed_requests),
            down + fed_down + (HEADER_BYTES + HTTP_BYTES) * (requests + fed_requests),
            requests + fed_requests,
        )
        for up, down, requests in crossings
    ]
    contributions = sum(map(workload.sent, workload.train))
    commits = _commits(workload, contributions)
    files = stored = puts = gets = 0.0
    if traits.split:
        partials = ceil(contributions / GROUP) if contributions >= SHARED_FROM and site.replicas > 1 else 0
        version = 2 + bool(sizes.body_optimizer and traits.body == "shared")  # weights, optimizer's state, commit
        files += contributions + version * commits + 1 + partials
        stored += contributions * sizes.body + commits * (sizes.body + sizes.body_optimizer * (version == 3))
        puts += contributions + version * commits + 1 + partials + 2 * commits
        gets += 2 * contributions + commits * 2 * site.replicas + partials
    if traits.federated:
        clients = len(workload.train)
        files += clients + 2 + 1
        stored += clients * (sizes.client_side + sizes.client_optimizer) + sizes.client_side
        puts += clients + 2 + 2
        gets += 3 * clients + 2
    return Volume(
        up=sum(one[0] for one in each),
        down=sum(one[1] for one in each),
        client_up=max(one[0] for one in each),
        client_down=max(one[1] for one in each),
        requests=sum(one[2] for one in each),
        files=round(files),
        stored=stored,
        puts=round(puts),
        gets=round(gets),
    )


def _commits(workload: Workload, contributions: int) -> int:
    """Versions that a round makes."""
    strategy = workload.spec.strategy
    if not strategy.traits.split or strategy.commit_batches == "round":
        return 1
    if strategy.traits.turns:
        return contributions
    return max(1, ceil(contributions * workload.unit / strategy.commit_batches))


def cost(round_: Volume, rounds: int, seconds: float, prices: Prices) -> float:
    """US dollars of a run's requests, and of keeping its files for as long as it takes (half of it, in the mean) and a
    month after."""
    kept = round_.stored * rounds / 1e9 * prices.gb_month * (1 + seconds / 2 / MONTH_S)
    return rounds * (round_.puts * prices.put + round_.gets * prices.get + round_.down / 1e9 * prices.gb_out) + kept
