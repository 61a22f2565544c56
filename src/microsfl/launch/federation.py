"""All roles of one run as processes on this machine, for as long as a `with` block lasts."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..config import ClientSettings, CoordinatorSettings, FedServerSettings, SplitServerSettings
from ..errors import InputError, OperationError, RunExists, RunFailed
from ..spec import RunSpec
from ..store.s3 import area_environment
from ..trust.keys import OPERATOR
from ..zoo.deal import client_ids
from .admission import LocalFederation
from .aside import aside
from .control import Control
from .forks import Forks
from .members import FED_SERVER, Members
from .preflight import check_store, resolve
from .processes import Processes
from .run_folder import RunFolder, default_path

WATCH_S = 1.0  # how soon a process that died is noticed
PAUSE_S = 0.1  # least time between two looks at a run, whose every report is a change
ENDED = ("finished", "failed", "stopped")

Json = dict[str, Any]


class Federation:
    """The processes of a run: coordinator and clients, split servers and fed server as far as the strategy needs them.

        with microsfl.Federation(spec) as federation:
            body = microsfl.RemoteBody(run=spec.run.name, coordinator=federation.coordinator)

    Entering starts the processes on free ports, then creates and starts the run. Leaving, in whatever way, stops the
    run and ends them; should this process be killed, they end by themselves. When `run.managed` is false there are no
    client processes: the caller's own training loops drive the run.

    Args:
        spec: the run; the attribute `spec` has every `auto` that decides a result resolved.
        folder: run folder, new or empty, for stores, records and logs; default: runs/<name>-<date>-<time>.
        resume: go on with the run that the stores, and the records if they are still there, already hold.
        forks: where the processes that compute are forked, for whoever has one already; default: one of its own.

    Raises, here or when it is entered:
        InputError: for whatever is wrong with the specification, the folder or the stores. No folder is left then.
        RunFailed: when a process ends before it is ready, with the end of its log.
    """

    coordinator: str  # URL, once it is entered
    folder: RunFolder
    control: Control
    class_counts: list[list[int]]  # train samples of each client, by class
    has_devices = True  # whether the specification's devices are those of this machine

    def __init__(
        self, spec: RunSpec, folder: Path | str | None = None, *, resume: bool = False, forks: Forks | None = None
    ) -> None:
        self.spec = resolve(spec)
        self.resumes = resume
        self.path = Path(folder) if folder is not None else default_path(spec.run.name)
        self.processes = self._processes(forks)
        self.children, self.supervisor = self.processes.children, self.processes.supervisor
        self._began = False
        self._local: LocalFederation | None = None

    def __enter__(self) -> Self:
        self.folder = RunFolder(self.path, resume=self.resumes)
        try:
            self._start()
        except BaseException as error:
            self.close()
            if isinstance(error, InputError):
                self.folder.discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the run, which changes nothing when it has ended, and end every process."""
        try:
            self.supervisor.stop()
            self._stop()
        finally:
            self.processes.close()
            if self._local is not None:
                self._local.close()

    def finish(self) -> None:
        """Ask every process to end, as `close` does, but do not wait for it."""
        self.supervisor.stop()
        self._stop()
        self.processes.finish()

    def follow(self) -> Iterator[Json]:
        """The run as the coordinator shows it: now, after each change and at least every second, until it finished.

        Raises:
            RunFailed: when it ends otherwise, or when a process ends that it cannot go on without.
        """
        run = self.control.watch(0, 0.0)
        while run["state"] not in ENDED:
            yield run
            seen_at = time.monotonic()
            run = self._watch(run)
            if run["state"] not in ENDED:
                time.sleep(max(0.0, PAUSE_S - (time.monotonic() - seen_at)))
        if run["state"] == "failed":
            raise RunFailed(f"Run '{run['name']}' failed in round {run['round']}: {run['reason']}")
        if run["state"] == "stopped":
            raise RunFailed(f"Run '{run['name']}' was stopped in round {run['round']}.")
        yield run

    def _watch(self, run: Json) -> Json:
        """The run after its next change; of its history only what is new is asked for."""
        known = run["history"]
        try:
            now = self.control.watch(run["revision"], WATCH_S, known[-1]["round"] + 1 if known else 0)
        finally:
            self._check()  # a process that stays down says more than the answer that did not come
        return {**now, "history": known + now["history"]}

    def _check(self) -> None:
        """Raises RunFailed for a process that stays down. A split server may, while there is another."""
        self.processes.record()
        replicas = [child for child in self.children if child.role == "split-server"]
        spare = not all(self.supervisor.is_down(child) for child in replicas)
        for child in self.children:
            if self.supervisor.is_down(child) and not (spare and child in replicas):
                raise child.failure()

    def _start(self) -> None:
        for area in areas(self.spec):
            try:
                check_store(
                    self.store_url(area), self.spec.run.name, f"store.{area}", area_environment(area, os.environ)
                )
            except RunExists:
                if not self.resumes:
                    raise
        self.processes.begin(self.folder)
        local = self._local = LocalFederation(self.spec.run.name)
        members = self._members(local)
        members.join(local)
        # It starts while the fork server imports torch; the others are not started for a wrong specification.
        coordinator = self.processes.spawn("coordinator", "coordinator", self._coordinator(local.write()))
        self.class_counts = self.aside("microsfl.launch.rehearsal:rehearsed", devices=self.has_devices)["class_counts"]
        self.folder.write_spec(self.spec)
        coordinator.wait_ready()
        self.coordinator = str(coordinator.address)
        local.begin(self.coordinator)
        members.start(self.processes, local, self._split_server, self._fed_server, self._client)
        self.control = Control(self.coordinator, self.spec.run.name)
        self._begin()

    def _processes(self, forks: Forks | None) -> Processes:
        return Processes(self.spec.servers.restarts, forks)

    def _members(self, _: LocalFederation) -> Members:
        """Who takes part; the federation is new."""
        traits, managed = self.spec.strategy.traits, self.spec.run.managed
        groups = client_groups(self.spec) if managed else []
        return Members.of(self.spec.servers.split * traits.split, groups, federated=traits.federated)

    def aside(self, function: str, **more: Any) -> Json:
        """See `aside`; the question has the run's specification and what else is given."""
        assert self.processes.forks is not None
        return aside(self.processes.forks, function, {"spec": self.spec.model_dump(mode="json"), **more})

    def _begin(self) -> None:
        self.control.create(self.spec, resume=self.resumes)
        self.control.tell_class_counts(self.class_counts)
        self.control.start()
        self._began = True

    def _stop(self) -> None:
        if self._began and self.children[0].state == "up":
            with suppress(OperationError):  # a coordinator that does not answer is ended all the same
                self.control.stop()
        self._began = False

    @property
    def credential(self) -> str:
        """File of the operator's credential, while the processes are there."""
        assert self._local is not None
        return str(self._local.credential(OPERATOR))

    def store_url(self, area: str) -> str:
        """URL of the store of the area "body" or "client"."""
        url: str = getattr(self.spec.store, area)
        return self.folder.store_url(area) if url == "auto" else url

    def _coordinator(self, federation: Path) -> CoordinatorSettings:
        url = self.spec.records.url
        return CoordinatorSettings(
            port=0, records_url=self.folder.records_url() if url == "auto" else url, federation=str(federation)
        )

    def _split_server(self, name: str, local: LocalFederation) -> SplitServerSettings:
        servers = self.spec.servers
        return SplitServerSettings(
            port=0,
            id=name,
            drain_s=0,
            coordinator=self.coordinator,
            credential=str(local.credential(name)),
            store_url=self.store_url("body"),
            allow_models=_own_function(self.spec.model.name),
            graph_cache_mb=servers.graph_cache_mb,
            weights_cache_mb=servers.weights_cache_mb,
            device=servers.device,
            threads=servers.threads,
        )

    def _fed_server(self, local: LocalFederation) -> FedServerSettings:
        return FedServerSettings(
            port=0,
            id=FED_SERVER,
            drain_s=0,
            coordinator=self.coordinator,
            credential=str(local.credential(FED_SERVER)),
            store_url=self.store_url("client"),
            front_weights=self.spec.model.front_weights,
            allow_models=_own_function(self.spec.model.name),
        )

    def _client(self, ids: tuple[str, ...], credential: Path) -> ClientSettings:
        return ClientSettings(
            coordinator=self.coordinator,
            credential=str(credential),
            ids=ids,
            # A run that is resumed may be known to the records with the paths of before.
            path=self.spec.data.path,
            front_weights=self.spec.model.front_weights,
            allow_models=_own_function(self.spec.model.name),
            allow_datasets=_own_function(self.spec.data.dataset),
            device=self.spec.servers.client_device,
            spread=self.spec.servers.spread,
            threads=1,
        )


def areas(spec: RunSpec) -> tuple[str, ...]:
    """The areas of the store that the run's strategy has files in."""
    traits = spec.strategy.traits
    return ("body",) * traits.split + ("client",) * traits.federated


def client_groups(spec: RunSpec, auto: int | None = None) -> list[tuple[str, ...]]:
    """The clients that each client process hosts, evenly.

    auto: how many processes, where the specification does not say; None: as many as cores.
    """
    ids, per_process = client_ids(spec.run_clients), spec.servers.clients_per_process
    return spread(ids, auto or cores() if per_process == "auto" else math.ceil(len(ids) / per_process))


def spread(ids: tuple[str, ...], wanted: int) -> list[tuple[str, ...]]:
    """The clients of each of so many processes, of which none is without."""
    processes = min(wanted, len(ids))
    return [ids[number::processes] for number in range(processes)]


def cores() -> int:
    """Cores that this process may use; macOS does not tell which those are, so all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _own_function(name: str) -> tuple[str, ...]:
    """The name of a user's own function, which a server imports only from its list."""
    return (name,) if ":" in name else ()
