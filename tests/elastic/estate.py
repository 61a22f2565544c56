"""Roles as processes of their own, each started when the test says so, on addresses that are known before."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import urllib3

from microsfl.config import ClientSettings, CoordinatorSettings, FedServerSettings, ProcessSettings, SplitServerSettings
from microsfl.launch.admission import LocalFederation
from microsfl.launch.child import Child
from microsfl.launch.control import Control
from microsfl.launch.forks import Forks
from microsfl.launch.process_folder import ProcessFolder
from microsfl.launch.processes import Processes
from microsfl.spec import RunSpec
from microsfl.store.objects import open_store
from microsfl.sync import keys
from microsfl.sync.commits import Chain
from microsfl.trust.scopes import Role
from microsfl.zoo.deal import client_ids

DEADLINE_S = 180.0  # generous: a busy machine is no reason to fail

Json = dict[str, Any]


class Folder(ProcessFolder):
    """Where logs, stores and records of an estate are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs.mkdir(parents=True)


class Estate:
    """A coordinator, a fed server, split servers and one process for each client; none runs before `start`.

    stores: URL of an area; default: folders.
    """

    def __init__(
        self, folder: Path, forks: Forks, split: int, clients: int, stores: Callable[[str], str] | None = None
    ) -> None:
        self.folder = Folder(folder)
        self.split, self.clients = [f"split-server-{n}" for n in range(split)], list(client_ids(clients))
        self.ports = {name: free_port() for name in ("coordinator", "fed-server", *self.split, *self.clients)}
        self.url = f"http://127.0.0.1:{self.ports['coordinator']}"
        self.children: dict[str, Child] = {}
        self._store_url = stores or self.folder.store_url
        self._processes = Processes(0, forks)
        self._local = LocalFederation("elastic")
        for name in self.split:
            self._local.add(name, Role.SPLIT_SERVER)
        self._local.add("fed-server", Role.FED_SERVER)
        for name in self.clients:
            self._local.add(name, Role.CLIENT)
        self._federation = self._local.write()
        self._local.begin(self.url)
        self._processes.begin(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as closing:
            closing.callback(self._local.close)
            closing.callback(self._processes.close)

    def names(self) -> list[str]:
        return list(self.ports)

    def start(self, *names: str) -> None:
        """Start these, without waiting for anything; one that ran before is started again."""
        for name in names:
            if name in self.children:
                self.children[name].restart()
            else:
                role, settings, area = self._role_of(name)
                self.children[name] = self._processes.spawn(role, name, settings, area)

    def ready(self, *names: str) -> None:
        for name in names:
            self.children[name].wait_ready()

    def end(self, name: str) -> int:
        """Ask a process to end; its exit code."""
        process = self.children[name].process
        os.kill(process.pid, signal.SIGTERM)
        return process.wait(DEADLINE_S)

    def control(self, run: str) -> Control:
        return Control(self.url, run, retry_s=DEADLINE_S)

    def finished(self, spec: RunSpec) -> tuple[str, str]:
        """The hashes of both parts, once a run that was started is finished."""
        control = self.control(spec.run.name)
        run = wait(lambda: control.run(spec.run.name), lambda one: one["state"] in ("finished", "failed", "stopped"))
        assert run["state"] == "finished", run["reason"]
        return self.hashes(spec)

    def hashes(self, spec: RunSpec) -> tuple[str, str]:
        areas = (("body", keys.BODY), ("client", keys.CLIENT))
        heads = [Chain(open_store(self._store_url(area)), spec.run.name, key).head() for area, key in areas]
        return heads[0].weights.sha256, heads[1].weights.sha256

    def server(self, name: str) -> Json:
        """What the coordinator knows of a server."""
        return next(one for one in self.control("any").participants() if one["id"] == name)

    def log(self, name: str) -> str:
        return self.children[name].log.read_text()

    def metric(self, client: str, name: str) -> float:
        """A metric of a client, summed up over what it is labelled with `to="server"`."""
        text = urllib3.request("GET", f"http://127.0.0.1:{self.ports[client]}/metrics").data.decode()
        lines = [line for line in text.splitlines() if line.startswith(name) and 'to="server"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def _role_of(self, name: str) -> tuple[str, ProcessSettings, str | None]:
        port, known = self.ports[name], {"coordinator": self.url, "credential": str(self._local.credential(name))}
        if name == "coordinator":
            records = self.folder.records_url()
            return name, CoordinatorSettings(port=port, records_url=records, federation=str(self._federation)), None
        if name == "fed-server":
            store = self._store_url("client")
            return name, FedServerSettings.parse({**known, "id": name, "port": port, "store_url": store}), keys.CLIENT
        if name in self.split:
            store = self._store_url("body")
            settings = SplitServerSettings.parse({**known, "id": name, "port": port, "store_url": store})
            return "split-server", settings, keys.BODY
        return "client", ClientSettings.parse({**known, "ids": (name,), "metrics_port": port, "spread": "two"}), None


def tiny(name: str, rounds: int, clients: int, **tables: Any) -> RunSpec:
    given = {
        "run": {"name": name, "rounds": rounds},
        "data": {"clients": clients, "batch_size": 16},
        "strategy": {"body_optimizer": {"lr": 0.02}, "client_optimizer": {"lr": 0.05}},
    }
    return RunSpec.parse({**given, **tables}).resolved(input_shape=(1, 8, 8), classes=10)


def free_port() -> int:
    """One that nobody listens on now, and that the system gives to no connection."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def wait(look: Callable[[], Json], condition: Callable[[Json], bool]) -> Json:
    """What `look` gives, as soon as the condition holds for it."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition(found := look()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {found}"
        time.sleep(0.05)
    return found
