"""The client process: hosts one client or several, asks the coordinator for work, does it, reports. Outbound only."""

from __future__ import annotations

import logging
import queue
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from cachetools import LRUCache
from torch import nn

from .. import __version__
from ..config import ClientSettings
from ..core.partition import Share
from ..device import choose_device, use_threads, warm_up
from ..errors import ClientNotFound, MicrosflError, ModelNotAllowed, RoundClosed, RunNotActive
from ..process import announce, event, start_logging
from ..spec import DATASETS, RunSpec
from ..telemetry.exposition import Point, build_point
from ..telemetry.opening import open_traces
from ..trust.tls import Outbound
from ..zoo.datasets import Data, labels, load_data, takes_client
from ..zoo.deal import OWN, check_own, deal, everything
from ..zoo.parts import build_parts, client_side, load_front
from .addresses import Addresses
from .choice import Choice, Loads
from .connections import Connections
from .coordinator import Coordinator
from .entitled import Ways
from .http import Http
from .metrics_port import show
from .tasks_done import TasksDone
from .trainer import Task, Trainer
from .transport import FedServer, SplitServers
from .units import LocalData

ROLE = "client"
POLL_S = 20.0
# Clients of one process that work at a time: one computes while the others wait for answers.
WORKERS = 4
# While some of its clients are at work: only the next poll tells the coordinator that a task was dropped.
BUSY_POLL_S = 1.0
# Before it asks again after tasks that it could not take, as their clients are still at others.
REFUSED_PAUSE_S = 0.2
HEARTBEAT_S = 3.0
# Before a client asks again after a task that the servers no longer wanted: the coordinator may offer the same one.
ABANDONED_PAUSE_S = 1.0
# Runs of which data, model and optimizers are kept; of older ones they are made anew.
RUNS_KEPT = 8


class Runs:
    """What the hosted clients share of each run: its specification, data and model. Loaded once, when first needed."""

    def __init__(self, settings: ClientSettings, coordinator: Coordinator) -> None:
        self.settings = settings
        self.coordinator = coordinator
        self.lock = threading.Lock()
        self.runs: LRUCache[str, tuple[RunSpec, dict[str, nn.Module]]] = LRUCache(RUNS_KEPT)
        self.data: LRUCache[tuple[str, str | None, str | None], Data] = LRUCache(RUNS_KEPT)
        self.shares: LRUCache[str, list[Share]] = LRUCache(RUNS_KEPT)

    def get(self, run: str) -> tuple[RunSpec, dict[str, nn.Module]]:
        """The run's specification, and what its clients hold, as it begins."""
        with self.lock:
            if run not in self.runs:
                spec = self.coordinator.spec(run)
                parts = build_parts(spec, self.settings.allow_models)
                load_front(spec, parts.front, self.settings.front_weights)
                self.runs[run] = spec, client_side(spec, parts)
            return self.runs[run]

    def local_data(self, spec: RunSpec, client: str, index: int) -> LocalData:
        """The samples of a client, which has that number in the run: its own data set, or its share of the run's.

        Raises:
            ModelNotAllowed: when the run names a data set function that this site does not allow.
            InvalidSetting: when the data is not what the run's model is made for.
        """
        own = self.settings.dataset
        name = own or spec.data.dataset
        if own is None and name not in DATASETS and name not in self.settings.allow_datasets:
            raise ModelNotAllowed(
                f"Data set '{name}' is not on this site's list; add it to allow_datasets to permit it."
            )
        with self.lock:
            if own is None and spec.data.partition != OWN:
                data = self._data(name, self.settings.path or spec.data.path)
                share = self._shares(spec, data)[index]
            else:
                data = self._data(name, self.settings.path or spec.data.path, client if takes_client(name) else None)
                share = everything(data)
                check_own(data, name, client, spec)
        return LocalData(data.train, data.test, share)

    def _data(self, name: str, path: str | None, client: str | None = None) -> Data:
        key = (name, path, client)
        if key not in self.data:
            self.data[key] = load_data(name, path, client)
        return self.data[key]

    def _shares(self, spec: RunSpec, data: Data) -> list[Share]:
        if spec.run.name not in self.shares:
            self.shares[spec.run.name] = deal(spec, labels(data.train), labels(data.test)).shares
        return self.shares[spec.run.name]


class Agent:
    """Polls for its clients, and hands each task to one of a few worker threads.

    in_hand: the clients' tasks, until the coordinator has the outcome. at_work: whose are not done yet.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self.device = choose_device(settings.device)
        self.traces = open_traces(settings.otel_endpoint, settings.otel_ratio, ROLE, settings.ids[0])
        self.process = secrets.token_hex(6)  # another one when the client comes back as another process
        self.http = Http(settings.retry_s, connections=Connections(Outbound.of(settings)))
        self.ways = Ways.of(self.http, settings.coordinator, settings.credential)
        self.coordinator = Coordinator(self.ways.coordinator, settings.coordinator)
        self.addresses = Addresses(lambda: settings.split_servers or self.coordinator.split_servers)
        self.loads = Loads()
        self.runs = Runs(settings, self.coordinator)
        self.trainers: LRUCache[tuple[str, str], Trainer] = LRUCache(RUNS_KEPT * len(settings.ids))
        self.done = TasksDone()
        self.tasks: queue.Queue[Task] = queue.Queue()
        self.in_hand: dict[str, Task] = {}
        self.at_work: set[str] = set()
        self.changed = threading.Condition()

    def run(self) -> None:
        """Work until the process ends.

        Raises:
            Unreachable: when the coordinator does not answer within the retry budget.
        """
        if self.settings.metrics_port is not None:
            show(self.settings, self.points)
        self.register()
        announce(ROLE, f"for {', '.join(self.settings.ids)}")
        threading.Thread(target=self._keep_saying, name="heartbeat", daemon=True).start()
        for number in range(min(WORKERS, len(self.settings.ids))):
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True).start()
        while True:
            taken = [self._take(task) for task in self._poll()]
            if taken and not any(taken):
                time.sleep(REFUSED_PAUSE_S)

    def points(self) -> Iterator[Point]:
        """The process's metrics."""
        yield build_point(ROLE)
        yield "microsfl_client_hosted", {}, len(self.settings.ids)
        yield "microsfl_client_tasks_in_hand", {}, len(self.in_hand)
        yield from self.done.points()
        yield from self.http.tries.points()

    def register(self) -> None:
        me = {"version": __version__, "device": str(self.device), "process": self.process}
        for client in self.settings.ids:
            self.coordinator.register(client, me)

    def _keep_saying(self) -> None:
        """Who trains for minutes does not poll; the coordinator is to know all the same that it is there."""
        while True:
            time.sleep(HEARTBEAT_S)
            try:
                self.register()
            except (MicrosflError, KeyError, TypeError) as error:  # whatever came back, it has to go on
                event("coordinator not reached", logging.WARNING, message=str(error))

    def _take(self, task: Task) -> bool:
        """Queue a task, unless its client is still at another one: then it is offered again."""
        with self.changed:
            if task.client in self.at_work:
                return False
            self.at_work.add(task.client)
            self.in_hand[task.client] = task
        self.tasks.put(task)
        return True

    def do(self, task: Task) -> None:
        """Do one task and report it; what fails for good is reported as the client's failure."""
        report: dict[str, Any] = {"client": task.client, "kind": task.kind, "round": task.round}
        try:
            trainer = self._trainer(task)
            report["metrics"] = trainer.train(task) if task.kind == "train" else trainer.evaluate(task)
            self.done.add(task.kind, "done", report["metrics"])
        except (RoundClosed, RunNotActive) as error:
            self.done.add(task.kind, "abandoned")
            event("task abandoned", logging.WARNING, **vars(task), reason=str(error))
            time.sleep(ABANDONED_PAUSE_S)
            return
        except MicrosflError as error:
            self.done.add(task.kind, "failed")
            event("task failed", logging.ERROR, **vars(task), code=error.code, message=str(error))
            report["error"] = {"code": error.code, "message": str(error)}
        with self.changed:
            self.at_work.discard(task.client)  # the next task may come before the answer to the report
        try:
            accepted = self.coordinator.report(task.run, report)
        except MicrosflError as error:  # the task is offered again, and done again it is the same
            event("report failed", logging.ERROR, **vars(task), message=str(error))
            return
        event("task done", logging.DEBUG, **vars(task), accepted=accepted)

    def _trainer(self, task: Task) -> Trainer:
        key = (task.run, task.client)
        with self.changed:
            known = self.trainers.get(key)
        if known is not None:
            return known
        spec, modules = self.runs.get(task.run)
        data = self.runs.local_data(spec, task.client, task.index)
        moves = self.settings.spread != "two" or spec.strategy.traits.body != "copies"
        choice = Choice(self.settings.spread if moves else "sticky", task.index, self.loads)
        split = SplitServers(self.ways.body, choice, self.addresses, traces=self.traces)
        fed = FedServer(self.ways.client_side, lambda: self.settings.fed_server or self.coordinator.fed_server)
        trainer = Trainer(spec, task.client, modules, data, split, fed, self.device, self.settings.in_flight)
        with self.changed:
            self.trainers[key] = trainer
        return trainer

    def _poll(self) -> list[Task]:
        """The clients' next tasks, as soon as there are some; as long as all have one in hand, it waits."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.in_hand) < len(self.settings.ids))
            in_hand = [vars(task) for task in self.in_hand.values()]
        try:
            tasks = self.coordinator.poll(self.settings.ids, BUSY_POLL_S if in_hand else POLL_S, in_hand)
            return [Task(**task) for task in tasks]
        except ClientNotFound:  # the coordinator started with an empty database
            self.register()
            return []

    def _work(self) -> None:
        use_threads(self.settings.threads)
        while True:
            task = self.tasks.get()
            try:
                self.do(task)
            except Exception as error:  # the thread's outermost loop: a bug ends the task, not the client
                logging.getLogger("microsfl").exception(
                    "task broke", extra={"data": {**vars(task), "error": repr(error)}}
                )
                self.done.add(task.kind, "broken")
                self._give_up(task, error)
            with self.changed:
                if self.in_hand.get(task.client) is task:  # else it has the next one
                    del self.in_hand[task.client]
                    self.at_work.discard(task.client)
                self.changed.notify()

    def _give_up(self, task: Task, error: Exception) -> None:
        failure = {"code": "internal", "message": f"{type(error).__name__}: {error}"}
        try:
            self.coordinator.report(
                task.run, {"client": task.client, "kind": task.kind, "round": task.round, "error": failure}
            )
        except MicrosflError as unreported:
            event("report failed", logging.ERROR, message=str(unreported))


def main(settings: ClientSettings) -> None:
    """Run a client process until it is asked to end."""
    start_logging(ROLE, settings.log_level)
    use_threads(settings.threads)
    warm_up()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    agent = Agent(settings)
    try:
        agent.run()
    finally:
        if agent.traces is not None:
            agent.traces.close()


def _end(_: int, __: FrameType | None) -> None:
    event("stopping")
    raise SystemExit(0)
