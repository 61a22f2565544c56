"""Several hosts, each with its address; one is cut off, then far away, then badly connected: the same weights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from microsfl.launch.admission import LocalFederation
from microsfl.launch.control import Control
from microsfl.spec import RunSpec
from microsfl.store.objects import open_store
from microsfl.sync import keys
from microsfl.sync.commits import Chain
from microsfl.trust.authority import Authority
from microsfl.trust.credential import Credential
from microsfl.trust.keys import OPERATOR
from microsfl.trust.scopes import Role
from microsfl.zoo.deal import client_ids
from tests.elastic.estate import DEADLINE_S, Json, tiny, wait
from tests.elastic.network import Network, inside, needs_namespaces

pytestmark = pytest.mark.slow

CLIENTS = client_ids(3)
SERVERS = {"split-0": "split-server", "split-1": "split-server", "split-2": "split-server", "fed": "fed-server"}
HOSTS = {name: f"10.77.0.{10 + number}" for number, name in enumerate(["control", *SERVERS, *CLIENTS, "operator"])}
PORT = 8000
URL = f"https://{HOSTS['control']}:{PORT}"
BAD, ROUNDS = "split-1", 30


class Sites:
    """A host a role, and TLS between them, with certificates of their addresses."""

    def __init__(self, folder: Path, network: Network, open_until: ExitStack) -> None:
        self.folder, self.network, self.open_until = folder, network, open_until
        self.authority = Authority.in_folder(folder / "pki")
        self.local = LocalFederation("hosts")
        open_until.callback(self.local.close)
        for name, role in SERVERS.items():
            self.local.add(name, Role(role))
        for name in CLIENTS:
            self.local.add(name, Role.CLIENT)
        records, federation = f"sqlite:///{folder}/records.db", str(self.local.write())
        self.local.begin(URL)
        for name in (OPERATOR, *SERVERS, *CLIENTS):
            file = self.local.credential(name)
            replace(Credential.read(file), tls_ca=(folder / "pki" / "ca.pem").read_text()).write(file)
        self._start("control", "coordinator", *self._listening("control"), "--records-url", records,
                    "--federation", federation, "--tls-ca", str(folder / "pki" / "ca.pem"))  # fmt: skip
        for name, role in SERVERS.items():
            store = f"file://{folder}/{'client' if role == 'fed-server' else 'body'}"
            self._start(name, role, "--id", name, "--store-url", store, *self._listening(name), *self._as(name))
        for name in CLIENTS:
            self._start(name, "client", "--ids", name, *self._as(name))
        operator = str(self.local.credential(OPERATOR))
        self.control = Control(URL, "any", retry_s=DEADLINE_S, credential=operator)

    def _listening(self, name: str) -> tuple[str, ...]:
        pair = self.authority.server([HOSTS[name]])
        at = ("--host", HOSTS[name], "--port", str(PORT), "--log-level", "info")
        return (*at, "--tls-cert", str(pair.cert), "--tls-key", str(pair.key))

    def _as(self, name: str) -> tuple[str, ...]:
        return ("--coordinator", URL, "--credential", str(self.local.credential(name)))

    def _start(self, name: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.log").open("w")
        command = self.network.command(name, sys.executable, "-m", "microsfl", *arguments)
        child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.open_until.callback(log.close)
        self.open_until.callback(child.wait)
        self.open_until.callback(child.kill)

    def start(self, spec: RunSpec) -> None:
        self.control.name = spec.run.name
        self.control.create(spec)
        self.control.start()

    def run(self, until: Callable[[Json], bool]) -> Json:
        name = self.control.name
        return wait(lambda: self.control.run(name), lambda run: until(run) or run["state"] in ("failed", "stopped"))

    def bad(self) -> Json:
        """What the coordinator knows of the server with the bad link."""
        return next(one for one in self.control.participants() if one["id"] == BAD)

    def works_again(self) -> None:
        """Wait until that server has computed some more units."""
        before = self.bad()["info"]["units"]
        wait(self.bad, lambda one: one["info"]["units"] >= before + 5)

    def hashes(self, spec: RunSpec) -> tuple[str, ...]:
        run = self.run(lambda run: run["state"] == "finished")
        assert run["state"] == "finished", run["reason"]
        areas = (("body", keys.BODY), ("client", keys.CLIENT))
        chains = [Chain(open_store(f"file://{self.folder}/{area}"), spec.run.name, key) for area, key in areas]
        return tuple(chain.head().weights.sha256 for chain in chains)


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    needs_namespaces()
    with ExitStack() as open_until:
        network = open_until.enter_context(Network().running())
        for host, address in HOSTS.items():
            network.add(host, address)
        network.begin()
        open_until.enter_context(inside(network.namespace("operator")))
        yield Sites(tmp_path, network, open_until)


def test_a_link_that_is_cut_then_slow_then_lossy(sites: Sites) -> None:
    spec = tiny("bad-link", ROUNDS, len(CLIENTS), servers={"spread": "random"})
    link = sites.network.links[BAD]
    sites.start(spec)
    sites.run(lambda run: run["round"] >= 2)

    link.cut = True
    sites.run(lambda run: run["round"] >= 5)
    assert not sites.bad()["alive"]

    link.cut, link.delay_s = False, 0.2
    wait(sites.bad, lambda one: one["alive"])
    sites.works_again()

    link.delay_s, link.loss = 0.0, 0.05
    lost = link.lost
    sites.works_again()
    assert link.late
    assert link.lost > lost
    assert sites.run(lambda _: True)["state"] == "running", "the run was over before its links were bad"

    hashes = sites.hashes(spec)
    link.loss = 0.0
    calm = tiny("good-links", ROUNDS, len(CLIENTS))
    sites.start(calm)
    assert sites.hashes(calm) == hashes
