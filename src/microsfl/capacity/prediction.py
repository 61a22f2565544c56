"""How long a round and a run take on a site, and what holds them up (docs/guides/capacity.md has the formulas)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from .calibration import Calibration
from .demands import (
    WORKERS,
    Demands,
    aggregate_s,
    beats_busy,
    beats_per_s,
    coordinator_s,
    demands,
    reduce_s,
)
from .queueing import Cycles, Flow, Station, round_seconds, solve
from .site import Site
from .workload import EVALUATION_BATCH, Workload

SPLIT, CLIENTS, CORES, COORDINATOR, FED, STORE, LINKS, COMMITS = (
    "split servers", "client processes", "cores", "coordinator", "fed server", "store", "server links", "commits",
)  # fmt: skip
STEPS = 40  # of the search for how much everything is slowed down by cores that it shares


@dataclass(frozen=True)
class Prediction:
    """Seconds of a round, and how busy each station is while clients train.

    training: units. exchange: weights handed in, tasks given and reported. sync, evaluation: see the guide.
    unit: of one unit, waiting included. alone: of one with nobody else there. utilisation: share of the training in
    which a station is at work, its servers' mean. waits: seconds of a unit at each station. polls: requests to the
    coordinator in a second.
    """

    training: float
    exchange: float
    sync: float
    evaluation: float
    unit: float
    alone: float
    demands: Demands
    utilisation: dict[str, float]
    waits: dict[str, float]
    polls: float

    @property
    def round(self) -> float:
        return self.training + self.exchange + self.sync + self.evaluation


def predict(workload: Workload, calibration: Calibration, site: Site) -> Prediction:
    """A round of a workload on a site."""
    asked = demands(workload, calibration, site)
    slots = _slots(workload, site)
    cycles = Cycles(lambda count: _flow(count, asked, workload, site))
    training, busy = round_seconds([workload.units(one) for one in workload.train], slots, cycles)
    flow = cycles.flow(max(1, round(busy)))
    exchange = _working(workload, calibration, site, training, asked, flow.cycle) - training
    sync = calibration.round.sync + max(reduce_s(workload, calibration, site), aggregate_s(workload, calibration, site))
    evaluation = _evaluation(workload, calibration, site, asked)
    total = training + exchange + sync + evaluation
    events = 4 * workload.evaluating / total if total > 0 else 0.0
    return Prediction(
        training=training,
        exchange=exchange,
        sync=sync,
        evaluation=evaluation,
        unit=flow.cycle,
        alone=asked.alone,
        demands=asked,
        utilisation=_utilisation(flow, workload, calibration, site, total),
        waits=flow.residence,
        polls=events + beats_per_s(workload, site),
    )


def _slots(workload: Workload, site: Site) -> int:
    """Clients that are at work at a time."""
    clients = len(workload.train)
    if workload.spec.strategy.traits.turns:
        return 1
    if not site.shared:
        return clients
    processes = min(site.processes or clients, clients)
    return sum(min(WORKERS, ceil((clients - number) / processes)) for number in range(processes))


def _flow(count: int, asked: Demands, workload: Workload, site: Site) -> Flow:
    """So many clients at work."""
    if not site.shared:
        return solve(count, asked.client + asked.wait + asked.link, _stations(asked, site, workload, 0.0))
    cpu = asked.client_cpu + asked.server_cpu
    return _within(
        site.cores or 1, cpu, lambda slower: solve(count, asked.wait, _stations(asked, site, workload, slower))
    )


def _stations(asked: Demands, site: Site, workload: Workload, slower: float) -> list[Station]:
    """slower: how much of its seconds of a core each has to wait besides, for a core."""
    found = [
        Station(SPLIT, asked.server + slower * asked.server_cpu, site.replicas, site.spread == "sticky"),
        Station(LINKS, asked.server_link, site.replicas, site.spread == "sticky"),
        Station(STORE, asked.store),
        Station(COMMITS, asked.commit),
    ]
    if site.shared:
        processes = min(site.processes or len(workload.train), len(workload.train))
        found.append(Station(CLIENTS, asked.client + slower * asked.client_cpu, processes, assigned=True))
    return found


def _within(cores: int, cpu: float, flow_of: Callable[[float], Flow]) -> Flow:
    """The flow with everything slowed down as far as it takes for the cores to be enough."""
    flow = flow_of(0.0)
    if flow.throughput * cpu <= cores:
        return _with_cores(flow, cpu, cores)
    low, high = 0.0, 1.0
    while flow_of(high).throughput * cpu > cores:
        low, high = high, 2 * high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if flow_of(middle).throughput * cpu > cores else (low, middle)
    return _with_cores(flow_of(high), cpu, cores)


def _with_cores(flow: Flow, cpu: float, cores: int) -> Flow:
    return replace(flow, utilisation={**flow.utilisation, CORES: flow.throughput * cpu / cores})


def _working(
    workload: Workload, calibration: Calibration, site: Site, training: float, asked: Demands, cycle: float
) -> float:
    """Seconds from the round's begin to the last report: tasks, units, weights that go up.

    Clients that wait for the coordinator begin one after the other, and so come to their last unit one after the other,
    as they do in the queue of the split servers. As far as it is wider than that, the queue of the fed server, or of
    the coordinator for their reports, comes on top.
    """
    clients, took = len(workload.train), calibration.round
    up, _, requests = workload.handed()
    single = took.turnaround + (requests + 3) * site.rtt + up / site.up
    fed = clients * (took.fed_server / 2 + site.store_latency * bool(requests))
    coordinator = coordinator_s(workload, calibration, site, clients)
    if site.shared:
        work = clients * (took.client + took.fed_server) / 2 + coordinator
        return training + max(single, fed, work / (site.cores or 1))
    if workload.spec.strategy.traits.turns:  # one client's after the other
        return training + max(clients * single, fed, coordinator)
    begins = coordinator / 2
    longest = max(map(workload.units, workload.train)) * asked.alone
    ends = max(fed, clients * up / site.server_link, begins) - max(begins, cycle)
    return max(max(training, longest + begins) + max(0.0, ends), coordinator) + single


def _evaluation(workload: Workload, calibration: Calibration, site: Site, asked: Demands) -> float:
    """Every client fetches the new weights and evaluates its test samples."""
    took, clients = calibration.round, workload.evaluating
    each = took.evaluation / took.evaluated if took.evaluated else 0.0
    sizes = workload.sizes
    share = 1 / (2 if workload.spec.model.u_shaped else 1)  # a request without a backward
    per_request = share * (asked.client + asked.server + asked.wait) if asked.requests else 0.0
    requests = [ceil(one / EVALUATION_BATCH) for one in workload.test]
    longest, all_samples, all_requests = max(workload.test, default=0), sum(workload.test), sum(requests)
    _, down, _ = workload.handed()
    link = max(requests, default=0) * site.rtt + longest * (sizes.activations / site.up + sizes.outputs / site.down)
    single = longest * each + max(requests, default=0) * per_request + link + down / site.down + 3 * site.rtt
    work = all_samples * each + all_requests * per_request
    coordinator = coordinator_s(workload, calibration, site, clients)
    single += took.turnaround / 2
    fed = clients * (took.fed_server / 2 + site.store_latency * bool(down))
    if site.shared:
        work += clients * (took.client + took.fed_server) / 2 + coordinator
        return max(single, fed, work / (site.cores or 1))
    return max(single, work / 2 / site.replicas, clients * down / site.server_link, fed, coordinator)


def _utilisation(
    flow: Flow, workload: Workload, calibration: Calibration, site: Site, total: float
) -> dict[str, float]:
    clients, took = len(workload.train), calibration.round
    work = took.coordinator_fixed + clients * took.coordinator
    beats = beats_busy(workload, calibration, site)
    fed = clients * took.fed_server + aggregate_s(workload, calibration, site)
    found = dict(flow.utilisation)
    found[COORDINATOR] = min(1.0, beats + (work / total if total > 0 else 0.0))
    if workload.spec.strategy.traits.federated:
        found[FED] = min(1.0, fed / total) if total > 0 else 0.0
    return found


def replicas_for(
    workload: Workload,
    calibration: Calibration,
    site: Site,
    *,
    within_s: float | None = None,
    utilisation: float | None = None,
    most: int = 1 << 14,
) -> int | None:
    """The fewest split servers with which a round takes at most `within_s` and each is busy for at most `utilisation`
    of the training; None when no number does."""

    def fits(replicas: int) -> bool:
        found = predict(workload, calibration, replace(site, replicas=replicas))
        if within_s is not None and found.round > within_s:
            return False
        return utilisation is None or found.utilisation.get(SPLIT, 0.0) <= utilisation

    low, high = 0, 1
    while not fits(high):
        if high >= most:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def busiest(found: Prediction, names: Sequence[str] = ()) -> tuple[str, float]:
    """The station that is at work for the largest share of the time."""
    shares = {name: share for name, share in found.utilisation.items() if not names or name in names}
    name = max(shares, key=lambda one: shares[one], default="clients")
    return name, shares.get(name, 0.0)
