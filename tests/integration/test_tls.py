"""Laws with everything locked: authentication, TLS and mutual TLS between real processes change no bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

import microsfl
from microsfl.launch.admission import OPERATOR, LocalFederation
from microsfl.launch.control import Control
from microsfl.spec import RunSpec
from microsfl.trust.authority import Authority
from microsfl.trust.credential import Credential
from microsfl.trust.scopes import Role
from microsfl.zoo.deal import client_ids
from tests.integration.launched import run
from tests.integration.test_remote_body import ADAM, trains_as_here
from tests.service.test_roles import Process, role

ASKED = ("--set", "run.name=locked", "--set", "run.rounds=2", "--set", "data.clients=3", "--json")
SPLIT, FED = "split-server", "fed-server"


class Locked:
    """A coordinator, a split server, a fed server and three clients in one process; all of them know each other by
    certificates and credentials, and nobody else."""

    def __init__(self, folder: Path, open_until: ExitStack) -> None:
        self.folder, self.open_until = folder, open_until
        self.authority = Authority.in_folder(folder / "pki")
        self.ca = str(folder / "pki" / "ca.pem")
        self.local = LocalFederation("locked")
        open_until.callback(self.local.close)
        self.local.add(SPLIT, Role.SPLIT_SERVER)
        self.local.add(FED, Role.FED_SERVER)
        self.local.add("clients", Role.CLIENT, client_ids(3))
        records = f"sqlite:///{folder}/records.db"
        where = ("--records-url", records, "--federation", str(self.local.write()), "--tls-ca", self.ca)
        self.coordinator = self._start("coordinator", "coordinator", *self._server("coordinator"), *where)
        assert self.coordinator.address is not None
        self.url = self.coordinator.address
        self.local.begin(self.url)
        for name, place in ((SPLIT, "body"), (FED, "client")):
            where = ("--id", name, "--store-url", f"file://{folder}/{place}")
            self._start(name, name, *where, *self._server(name), *self._as(name))
        self._start("clients", "client", "--ids", ",".join(client_ids(3)), *self._as("clients"), *self.shown("clients"))

    def shown(self, name: str) -> tuple[str, ...]:
        """How a process that does not listen shows who it is."""
        pair = self.authority.client(name)
        return ("--tls-client-cert", str(pair.cert), "--tls-client-key", str(pair.key))

    def credential(self, name: str) -> str:
        """With the CA, so that no file of it has to be named."""
        file = self.local.credential(name)
        replace(Credential.read(file), tls_ca=Path(self.ca).read_text()).write(file)
        return str(file)

    def _server(self, name: str) -> tuple[str, ...]:
        """What a server listens with. It shows the same to others."""
        pair = self.authority.server([name, "127.0.0.1"])
        return ("--port", "0", "--tls-cert", str(pair.cert), "--tls-key", str(pair.key), "--tls-client-ca", self.ca)

    def _as(self, name: str) -> tuple[str, ...]:
        return ("--coordinator", self.url, "--credential", self.credential(name))

    def _start(self, name: str, *arguments: str) -> Process:
        folder = self.folder / name
        folder.mkdir()
        return self.open_until.enter_context(role(folder, *arguments))


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    with ExitStack() as open_until:
        yield Locked(tmp_path_factory.mktemp("locked"), open_until)


def test_law_2_with_tls_and_authentication(locked: Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run(tmp_path / "plain", *ASKED)
    assert plain.process.returncode == 0, plain.process.stderr
    monkeypatch.setenv("MICROSFL_CREDENTIAL", locked.credential(OPERATOR))
    done = run(tmp_path / "run", *ASKED, "--coordinator", locked.url, *locked.shown("operator"))
    assert done.process.returncode == 0, done.process.stderr
    assert done.summary["weights_sha256"] == plain.summary["weights_sha256"]
    assert done.summary["accuracy"] == plain.summary["accuracy"]
    assert [address.partition("://")[0] for address in said(locked)] == ["https"] * 3


def test_law_1_with_tls_and_authentication(locked: Locked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `RemoteBody` finds the certificate to show in the environment, and the CA to trust in the credential."""
    _, cert, _, key = locked.shown("operator")
    monkeypatch.setenv("MICROSFL_TLS_CLIENT_CERT", cert)
    monkeypatch.setenv("MICROSFL_TLS_CLIENT_KEY", key)
    credential = locked.credential(OPERATOR)
    spec = RunSpec.parse({"run": {"name": "unmanaged", "managed": False}, "strategy": ADAM})
    spec = spec.resolved(input_shape=(1, 8, 8), classes=10)
    control = Control(locked.url, "unmanaged", credential=credential)
    control.create(spec)
    control.start()
    trains_as_here(microsfl.RemoteBody("unmanaged", locked.url, credential=credential), spec)


def said(locked: Locked) -> list[str]:
    """Where each server says that it listens."""
    logs = [locked.folder / name / f"{name}.log" for name in ("coordinator", SPLIT, FED)]
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return [line["address"] for line in lines if line["event"] == "ready"]
