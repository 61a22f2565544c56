"""What a unit and a round ask of each station of a site, in seconds: the calibration, applied to a workload there."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

from .calibration import Calibration
from .site import Site
from .workload import Workload

WORKERS = 4  # clients of one process that are at work at a time
CLIENT_HEARTBEAT_S, SERVER_HEARTBEAT_S = 3.0, 2.0
CLIENT_LEASE_S = 15.0  # without a sign of life for so long, a client counts as lost
READERS = 16  # requests that who reads a bucket has under way
GROUP = 128  # contributions of a group of a sum
SHARED_FROM = 256  # contributions of the round before, from which on replicas share a sum


@dataclass(frozen=True)
class Demands:
    """Seconds. client: of a client's process for a unit. link: of a client's link for it, round trips included. server:
    of one split server. server_link: of its link. store: of the store, which takes one request after the other, if at
    all. commit: of closing versions within the round. wait: of nobody. client_cpu, server_cpu: of a core. requests:
    to split servers. bytes_up, bytes_down: of tensors, on the client's link."""

    client: float
    link: float
    server: float
    server_link: float
    store: float
    commit: float
    wait: float
    client_cpu: float
    server_cpu: float
    requests: float
    bytes_up: float
    bytes_down: float

    @property
    def alone(self) -> float:
        """Seconds of a unit when nobody else is there."""
        own = self.client + self.link + self.wait
        return own + self.server + self.server_link + self.store + self.commit


def demands(workload: Workload, calibration: Calibration, site: Site) -> Demands:
    """Of a mean unit of the workload."""
    unit, split = calibration.unit, workload.spec.strategy.traits.split
    units = max(1, sum(map(workload.units, workload.train)))
    samples = workload.epochs * sum(workload.train) / units
    larger = samples / unit.samples
    crossings = [workload.crossing(one) for one in workload.train]
    up, down, requests = (sum(one[part] for one in crossings) / units for part in range(3))
    written = sum(map(workload.sent, workload.train)) / units
    client = (unit.client_compute * larger + unit.client - unit.client_compute) / site.client_speed
    return Demands(
        client=client,
        link=requests * site.rtt + up / site.up + down / site.down,
        server=_server(unit.server_compute * larger / site.server_speed, calibration, site, written) if split else 0.0,
        server_link=max(up, down) / site.server_link,
        store=max(3 * written / site.store_requests, written * workload.sizes.body / site.store_link),
        commit=_commits(workload, calibration, site) * samples / workload.batch if split else 0.0,
        wait=unit.wait,
        client_cpu=max(0.0, unit.client_cpu + unit.client_compute * (larger - 1)),
        server_cpu=max(0.0, unit.server_cpu + unit.server_compute * (larger - 1)) if split else 0.0,
        requests=requests,
        bytes_up=up,
        bytes_down=down,
    )


def _server(compute: float, calibration: Calibration, site: Site, written: float) -> float:
    """A contribution is written, and before it the round's seal looked for, while the compute thread waits."""
    unit = calibration.unit
    return compute + unit.server - unit.server_compute + 2 * written * site.store_latency


def _commits(workload: Workload, calibration: Calibration, site: Site) -> float:
    """Seconds for each batch, of commits within the round."""
    batches = workload.spec.strategy.commit_batches
    if batches == "round" or workload.spec.strategy.traits.turns:  # in turns, a unit was measured with its commit
        return 0.0
    fixed = calibration.round.reduce + 3 * site.store_latency
    return fixed / batches + calibration.round.reduce_each / workload.unit


def reduce_s(workload: Workload, calibration: Calibration, site: Site) -> float:
    """Closing a round: reading its contributions, adding them up in groups that replicas share, writing a version."""
    traits = workload.spec.strategy.traits
    if not traits.split:
        return 0.0
    count = sum(map(workload.sent, workload.train))
    if workload.spec.strategy.commit_batches != "round":
        batches = workload.spec.strategy.commit_batches
        count = min(count, ceil(batches / workload.unit))
    groups = ceil(count / GROUP)
    helpers = min(site.replicas, groups) if count >= SHARED_FROM and not site.shared else 1
    each = calibration.round.reduce_each + max(
        site.store_latency / READERS, workload.sizes.body / min(site.server_link, site.store_link)
    )
    partials = (groups if helpers > 1 else 0) * (each + calibration.round.reduce_each)
    own = ceil(groups / helpers) * GROUP if helpers > 1 else count
    shared = max(own * each, count / site.store_requests)
    return calibration.round.reduce + 4 * site.store_latency + shared + partials


def aggregate_s(workload: Workload, calibration: Calibration, site: Site) -> float:
    """The fed server reads what clients handed in, averages it, and writes a version."""
    if not workload.spec.strategy.traits.federated:
        return 0.0
    size = workload.sizes.client_side + workload.sizes.client_optimizer
    each = calibration.round.aggregate_each + max(
        site.store_latency / READERS, size / min(site.server_link, site.store_link), 1 / site.store_requests
    )
    return calibration.round.aggregate + 3 * site.store_latency + len(workload.train) * each


def beats_per_s(workload: Workload, site: Site) -> float:
    """Signs of life that the coordinator gets."""
    clients = workload.evaluating / CLIENT_HEARTBEAT_S
    return clients + (site.replicas * workload.spec.strategy.traits.split + 1) / SERVER_HEARTBEAT_S


def coordinator_s(workload: Workload, calibration: Calibration, site: Site, clients: int) -> float:
    """Seconds in which the coordinator does its part of a task of each of so many clients.

    That is half of what a client's round asks of it, and the signs of life that come meanwhile.

    A client waits for the answer to one before it counts the seconds to the next. So they are T / (T + 3 s) of all
    clients' in a time T, which is T = W + B T / (T + 3 s): with work W and B for one sign of life of everybody.
    """
    work = calibration.round.coordinator_fixed / 2 + clients * calibration.round.coordinator / 2
    every = beats_per_s(workload, site) * CLIENT_HEARTBEAT_S * calibration.heartbeat
    more = work + every - CLIENT_HEARTBEAT_S
    return (more + sqrt(more * more + 4 * work * CLIENT_HEARTBEAT_S)) / 2


def beats_busy(workload: Workload, calibration: Calibration, site: Site) -> float:
    """Share of the coordinator's time that signs of life take."""
    return min(1.0, beats_per_s(workload, site) * calibration.heartbeat)
