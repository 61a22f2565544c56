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
    body, client = _body_area(workload, site), _client_area(workload)
    return Volume(
        up=sum(one[0] for one in each),
        down=sum(one[1] for one in each),
        client_up=max(one[0] for one in each),
        client_down=max(one[1] for one in each),
        requests=sum(one[2] for one in each),
        files=body.files + client.files,
        stored=body.stored + client.stored,
        puts=body.puts + client.puts,
        gets=body.gets + client.gets,
    )


@dataclass(frozen=True)
class Area:
    """What a round does to one area of the store; see `Volume`."""

    files: int = 0
    stored: float = 0.0
    puts: int = 0
    gets: int = 0


def _body_area(workload: Workload, site: Site) -> Area:
    """Contributions, versions, the round's seal. The numbers of requests are those that a test counts."""
    traits, sizes = workload.spec.strategy.traits, workload.sizes
    if not traits.split:
        return Area()
    clients, units = len(workload.train), sum(map(workload.sent, workload.train))
    replicas = min(site.replicas, clients) if site.spread == "sticky" else site.replicas
    commits = _commits(workload, units)
    keeps_state = bool(sizes.body_optimizer) and traits.body == "shared"
    files = units + (2 + keeps_state) * commits + 1 + traits.turns  # with turns the round's last commit takes nothing
    stored = units * sizes.body + commits * (sizes.body + sizes.body_optimizer * keeps_state)
    puts, gets = files + 2 * commits, 2 * units + clients + commits * (10 + 6 * (replicas - 1))
    if traits.turns:
        puts, gets = files + units + 2, 10 * units + clients + 11 + 6 * (replicas - 1)
    elif traits.body == "copies":
        gets = 3 * units + clients + 8 + 3 * (replicas - 1)
    if site.spread == "random":  # activations are handed over through the store
        puts, gets = puts + units, gets + units - units // replicas
    if units >= SHARED_FROM and replicas > 1 and not site.shared:
        partials = ceil(units / GROUP)
        files, puts, gets, stored = files + partials, puts + partials, gets + partials, stored + partials * sizes.body
    return Area(files, stored, puts, gets)


def _client_area(workload: Workload) -> Area:
    """Updates, a version, the round's seal."""
    if not workload.spec.strategy.traits.federated:
        return Area()
    clients, sizes = len(workload.train), workload.sizes
    stored = clients * (sizes.client_side + sizes.client_optimizer) + sizes.client_side
    return Area(clients + 3, stored, clients + 4, 6 * clients + 9)


def _commits(workload: Workload, units: int) -> int:
    """Versions that a round makes."""
    strategy = workload.spec.strategy
    if strategy.commit_batches == "round":
        return 1
    return units if strategy.traits.turns else max(1, ceil(units * workload.unit / strategy.commit_batches))


def cost(round_: Volume, rounds: int, seconds: float, prices: Prices) -> float:
    """US dollars of a run's requests, and of keeping its files for as long as it takes (half of it, in the mean) and a
    month after."""
    kept = round_.stored * rounds / 1e9 * prices.gb_month * (1 + seconds / 2 / MONTH_S)
    return rounds * (round_.puts * prices.put + round_.gets * prices.get + round_.down / 1e9 * prices.gb_out) + kept
