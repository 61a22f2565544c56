"""A round, event by event: every client, replica, link, the store, the coordinator and the fed server.

What `prediction` says in formulas is played here with simpy, with the product's own rules: how a client chooses its
replica and what it knows of their loads, groups of 128 contributions that replicas share, signs of life. The seconds
are the same `Demands`.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, field
from math import ceil
from statistics import fmean

import simpy

from .calibration import Calibration
from .demands import (
    CLIENT_HEARTBEAT_S,
    GROUP,
    READERS,
    SERVER_HEARTBEAT_S,
    SHARED_FROM,
    WORKERS,
    Demands,
    demands,
)
from .places import Cores, Place
from .site import Site
from .workload import EVALUATION_BATCH, Workload

FORWARD = 1 / 3  # of the seconds of a body's forward and backward, the forward's: it does one of three equal products
MOST_EVENTS = 600_000  # with more, several units are taken as one that takes as long as all of them
CURIOUS = 0.1  # how often a client goes where there is just one request less
FRESH_S = 5.0  # how long a client believes what a server said of its load
SPREAD = 0.1  # coefficient of variation of what a unit takes, an assumption

Events = Generator[simpy.Event, None, None]


@dataclass(frozen=True)
class Simulated:
    """Seconds of a simulated round. working: until the last client has reported its training. unit: mean of a unit's.
    busy: share of `working` in which the servers of a station work, their mean. together: units that were taken as one.
    events: that were played."""

    working: float
    sync: float
    evaluation: float
    unit: float
    busy: dict[str, float]
    together: int
    events: int

    @property
    def round(self) -> float:
        return self.working + self.sync + self.evaluation

    def to_json(self) -> dict[str, float]:
        return {
            "round": self.round,
            "working": self.working,
            "sync": self.sync,
            "evaluation": self.evaluation,
            "unit": self.unit,
            "together": self.together,
            "events": self.events,
            **{f"busy: {name}": share for name, share in self.busy.items()},
        }


def simulate(workload: Workload, calibration: Calibration, site: Site, seed: int = 0) -> Simulated:
    """One round."""
    return _Round(workload, calibration, site, seed).play()


@dataclass
class _Client:
    """loads: what it knows of each replica's requests, and since when."""

    number: int
    units: int
    test: int
    process: Place
    last: int
    loads: dict[int, tuple[int, float]] = field(default_factory=dict)


class _Round:
    def __init__(self, workload: Workload, calibration: Calibration, site: Site, seed: int) -> None:
        self.workload, self.calibration, self.site = workload, calibration, site
        self.random = random.Random(seed)
        self.env = simpy.Environment()
        self.asked: Demands = demands(workload, calibration, site)
        self.events = 0
        cores = Cores(site.cores) if site.cores else None
        self.cores = cores
        self.replicas = [Place() for _ in range(site.replicas)]
        self.links = [Place() for _ in range(site.replicas)]
        self.store, self.commits, self.fed_link = Place(), Place(), Place()
        self.fed, self.coordinator = Place(), Place()
        self.turns: dict[int, simpy.Resource] = {}
        self.clients = self._clients()
        self.together = self._together()
        self.unit_seconds: list[float] = []
        self.over = False

    def _clients(self) -> list[_Client]:
        workload, site = self.workload, self.site
        count = max(len(workload.train), workload.evaluating)
        processes = [Place() for _ in range(min(site.processes or count, count))] if site.shared else []
        found = []
        for number in range(count):
            train = workload.train[number] if number < len(workload.train) else 0
            test = workload.test[number] if number < len(workload.test) else 0
            process = processes[number % len(processes)] if processes else Place()
            found.append(_Client(number, workload.units(train) if train else 0, test, process, number % site.replicas))
        return found

    def _together(self) -> int:
        requests = 2 if self.workload.spec.model.u_shaped else 1
        events = sum(one.units for one in self.clients) * (2 + 3 * requests)
        return max(1, ceil(events / MOST_EVENTS))

    def play(self) -> Simulated:
        env = self.env
        servers = self.site.replicas * self.workload.spec.strategy.traits.split + 1
        for every_s in [CLIENT_HEARTBEAT_S] * len(self.clients) + [SERVER_HEARTBEAT_S] * servers:
            env.process(self._beats(every_s))
        training = [one for one in self.clients if one.units]
        work = self._in_turn(training) if self.workload.spec.strategy.traits.turns else self._at_once(training)
        env.run(until=env.process(work))
        working = env.now
        busy = self._busy(working)
        env.run(until=env.process(self._sync()))
        synced = env.now
        env.run(until=env.process(self._evaluations()))
        self.over = True
        return Simulated(
            working, synced - working, env.now - synced, fmean(self.unit_seconds) if self.unit_seconds else 0.0, busy,
            self.together, self.events,
        )  # fmt: skip

    def _busy(self, seconds: float) -> dict[str, float]:
        stations = {
            "split servers": self.replicas, "server links": self.links, "store": [self.store],
            "coordinator": [self.coordinator], "fed server": [self.fed],
        }  # fmt: skip
        found = {name: fmean(one.worked(seconds) for one in places) / seconds for name, places in stations.items()}
        if self.cores is not None:
            found["cores"] = self.cores.worked / seconds / self.cores.count
        return {name: share for name, share in found.items() if share > 0}

    def _at_once(self, clients: list[_Client]) -> Events:
        """On one machine, as many of a process at a time as it has workers."""
        if not self.site.shared:
            yield simpy.AllOf(self.env, [self.env.process(self._train(one)) for one in clients])
            return
        queues: dict[int, list[_Client]] = {}
        for one in clients:
            queues.setdefault(id(one.process), []).append(one)
        workers = [
            self.env.process(self._work(queue)) for queue in queues.values() for _ in range(min(WORKERS, len(queue)))
        ]
        yield simpy.AllOf(self.env, workers)

    def _work(self, queue: list[_Client]) -> Events:
        while queue:
            yield from self._train(queue.pop(0))

    def _in_turn(self, clients: list[_Client]) -> Events:
        for one in clients:
            yield from self._train(one)

    def _train(self, client: _Client) -> Events:
        took, asked = self.calibration.round, self.asked
        yield from self._task(client, took.client / 2 if self.site.shared else 0.0)
        left = client.units  # the weights that it begins with were fetched for the evaluation before
        while left:
            units = min(self.together, left)
            began_at = self.env.now
            yield from self._unit(client, asked, units)
            self.unit_seconds.append((self.env.now - began_at) / units)
            left -= units
        yield from self._hand_over(up=self.workload.handed()[0])
        if not self.site.shared:
            yield self._wait(took.turnaround)
        yield from self._task(client, took.client / 2 if self.site.shared else 0.0)

    def _unit(self, client: _Client, asked: Demands, units: int) -> Events:
        """Some units, one after the other in one go: forward and backward, or a step."""
        jitter = self._drawn() * units
        client_cpu = asked.client_cpu if self.site.shared else asked.client
        yield from self._at(client.process, client_cpu * jitter, (asked.client - client_cpu) * jitter)
        if not self.workload.spec.strategy.traits.split:
            return
        parts = (FORWARD, 1 - FORWARD) if self.workload.spec.model.u_shaped else (1.0,)
        replica = None
        for part in parts:
            replica = self._chosen(client, replica)
            yield self._wait((asked.link / 2 + asked.wait / 2) * units / len(parts))
            place = self.replicas[replica]
            queue = self._queued(place)
            if asked.server_link:
                yield self._until(self.links[replica].enter(self.env.now, 0.0, asked.server_link * units / len(parts)))
            cpu = asked.server_cpu if self.site.shared else 0.0
            share = part * jitter
            stored = self._stored(self.env.now, asked, units) if part == parts[-1] else 0.0
            yield from self._at(place, min(cpu, asked.server) * share, max(0.0, asked.server - cpu) * share)
            if stored > self.env.now:
                yield self._until(stored)
            client.loads[replica] = queue, self.env.now
            yield self._wait((asked.link / 2 + asked.wait / 2) * units / len(parts))

    def _stored(self, done: float, asked: Demands, units: int) -> float:
        """When the contribution is in the store, and a commit that became due is made."""
        if asked.store:
            done = max(done, self.store.enter(self.env.now, 0.0, asked.store * units))
        if asked.commit:
            done = max(done, self.commits.enter(self.env.now, 0.0, asked.commit * units))
        return done

    def _chosen(self, client: _Client, before: int | None) -> int:
        """The replica to ask; before: where the unit's forward was."""
        count = self.site.replicas
        if count == 1:
            return 0
        if self.site.spread == "random":
            return self.random.randrange(count)
        if self.site.spread == "sticky":
            return client.number % count
        if before is not None:
            return before
        other = (client.last + 1 + self.random.randrange(count - 1)) % count
        less = self._known(client, client.last) - self._known(client, other)
        if less > 1 or (less == 1 and self.random.random() < CURIOUS):
            client.last = other
        return client.last

    def _known(self, client: _Client, replica: int) -> int:
        load, since = client.loads.get(replica, (0, -FRESH_S))
        return load if self.env.now - since < FRESH_S else 0

    def _task(self, client: _Client, work: float) -> Events:
        """Half of what a task of a round takes: its poll or its report."""
        yield self._wait(self.site.rtt)
        yield from self._at(self.coordinator, self.calibration.round.coordinator / 4, 0.0)
        if work:
            yield from self._at(client.process, work, 0.0)

    def _hand_over(self, up: float = 0.0, down: float = 0.0) -> Events:
        """Client-side weights, from the fed server or to it."""
        if not up and not down:
            return
        site = self.site
        yield self._wait(site.rtt + up / site.up + down / site.down)
        if site.server_link < float("inf"):
            yield self._until(self.fed_link.enter(self.env.now, 0.0, max(up, down) / site.server_link))
        work = self.calibration.round.fed_server / 2
        yield from self._at(self.fed, work, site.store_latency)

    def _sync(self) -> Events:
        """Groups of contributions are added up by replicas that share them, then one closes the round."""
        took, site, workload = self.calibration.round, self.site, self.workload
        done = self.env.now
        if workload.spec.strategy.traits.split:
            count = sum(map(workload.sent, workload.train))
            if workload.spec.strategy.commit_batches != "round":
                count = min(count, ceil(workload.spec.strategy.commit_batches / workload.unit))
            groups = ceil(count / GROUP)
            read = max(site.store_latency / READERS, workload.sizes.body / min(site.server_link, site.store_link))
            each = took.reduce_each + read
            shared = count >= SHARED_FROM and not site.shared
            helpers = self.replicas[: groups if shared else 1]
            for group in range(groups):
                size = min(GROUP, count - group * GROUP)
                self.store.enter(self.env.now, 0.0, size / site.store_requests)
                ended = helpers[group % len(helpers)].enter(self.env.now, 0.0, size * each)
                done = max(done, ended, self.store.free_at)
            partials = groups * (each + took.reduce_each) if len(helpers) > 1 else 0.0
            done += took.reduce + 4 * site.store_latency + partials
        if workload.spec.strategy.traits.federated:
            size = workload.sizes.client_side + workload.sizes.client_optimizer
            read = max(
                site.store_latency / READERS, size / min(site.server_link, site.store_link), 1 / site.store_requests
            )
            work = took.aggregate + 3 * site.store_latency + len(workload.train) * (took.aggregate_each + read)
            done = max(done, self.fed.enter(self.env.now, 0.0, work))
        yield self._until(done + took.sync)

    def _evaluations(self) -> Events:
        clients = self.clients[: self.workload.evaluating]
        yield simpy.AllOf(self.env, [self.env.process(self._evaluate(one)) for one in clients])

    def _evaluate(self, client: _Client) -> Events:
        took, asked, sizes, site = self.calibration.round, self.asked, self.workload.sizes, self.site
        yield from self._task(client, 0.0)
        yield from self._hand_over(down=self.workload.handed()[1])
        each = took.evaluation / took.evaluated if took.evaluated else 0.0
        left = client.test
        while left > 0 and self.workload.spec.strategy.traits.split:
            samples = min(left, EVALUATION_BATCH)
            left -= samples
            share = 1 / (2 if self.workload.spec.model.u_shaped else 1)
            yield self._wait(site.rtt + samples * (sizes.activations / site.up + sizes.outputs / site.down))
            yield from self._at(client.process, asked.client * share, 0.0)
            replica = self.replicas[self._chosen(client, None)]
            yield from self._at(replica, asked.server * share / 3 + samples * each, 0.0)
        if left > 0:
            yield from self._at(client.process, left * each, 0.0)
        yield self._wait(took.turnaround / 2)
        yield from self._task(client, 0.0)

    def _beats(self, every_s: float) -> Events:
        """Somebody's signs of life, which the coordinator answers among its other work."""
        yield self._wait(self.random.uniform(0.0, every_s))
        while not self.over:
            yield from self._at(self.coordinator, self.calibration.heartbeat, 0.0)
            yield self._wait(every_s)

    def _at(self, place: Place, core_s: float, other_s: float) -> Events:
        """Work at a place. Where cores are shared, one is asked for only once the work's turn has come."""
        if self.cores is None:
            yield self._until(place.enter(self.env.now, core_s, other_s))
            return
        turns = self.turns.setdefault(id(place), simpy.Resource(self.env))
        with turns.request() as turn:
            yield turn
            yield self._until(self.cores.enter(self.env.now, core_s) + other_s)
        place.total += core_s + other_s

    def _queued(self, place: Place) -> int:
        turns = self.turns.get(id(place))
        return place.queued(self.env.now) if turns is None else turns.count + len(turns.queue)

    def _drawn(self) -> float:
        """About 1, never below 0: a gamma variate with that spread."""
        shape = 1 / SPREAD**2
        return self.random.gammavariate(shape, 1 / shape)

    def _wait(self, seconds: float) -> simpy.Event:
        self.events += 1
        return self.env.timeout(max(0.0, seconds))

    def _until(self, at: float) -> simpy.Event:
        self.events += 1
        return self.env.timeout(max(0.0, at - self.env.now))
