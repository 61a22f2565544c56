"""Laws with everything locked: authentication, TLS and mutual TLS between real processes change no bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

import microsfl
from microsfl.launch.admission import LocalFederation
from microsfl.launch.control import Control
from microsfl.spec import RunSpec
from microsfl.trust.authority import Authority
from microsfl.trust.credential import Credential
from microsfl.trust.keys import OPERATOR
from microsfl.trust.scopes import Role
from microsfl.zoo.deal import client_ids
from tests.integration.launched import DEADLINE_S, Finished, command, run, until
from tests.integration.test_remote_body import ADAM, trains_as_here
from tests.service.test_roles import Process, role

pytestmark = pytest.mark.slow  # many processes

ASKED = ("--set", "run.rounds=2", "--set", "data.clients=3", "--json")
SERVERS = {"split-server": "split-server", "spare": "split-server", "fed-server": "fed-server"}  # name -> role


class Locked:
    """A coordinator, two split servers, a fed server and three clients in one process; all of them know each other by
    certificates and credentials, and nobody else."""

    def __init__(self, folder: Path, open_until: ExitStack) -> None:
        self.folder, self.open_until = folder, open_until
        self.servers: dict[str, Process] = {}
        self.authority = Authority.in_folder(folder / "pki")
        self.ca = str(folder / "pki" / "ca.pem")
        self.local = LocalFederation("locked")
        open_until.callback(self.local.close)
        for name, kind in SERVERS.items():
            self.local.add(name, Role(kind))
        self.local.add("clients", Role.CLIENT, client_ids(3))
        records = f"sqlite:///{folder}/records.db"
        where = ("--records-url", records, "--federation", str(self.local.write()), "--tls-ca", self.ca)
        self.coordinator = self._start("coordinator", "coordinator", *self._server("coordinator"), *where)
        assert self.coordinator.address is not None
        self.url = self.coordinator.address
        self.local.begin(self.url)
        for name, kind in SERVERS.items():
            place = "client" if kind == "fed-server" else "body"
            where = ("--id", name, "--store-url", f"file://{folder}/{place}")
            self.servers[name] = self._start(name, kind, *where, *self._server(name), *self._as(name))
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


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same run on this machine, as anybody starts one."""
    done = run(tmp_path_factory.mktemp("plain") / "run", *ASKED)
    assert done.process.returncode == 0, done.process.stderr
    return done


def test_law_2_with_tls_and_authentication(
    locked: Locked, plain: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROSFL_CREDENTIAL", locked.credential(OPERATOR))
    asked = (*ASKED, "--set", "run.name=locked", "--coordinator", locked.url, *locked.shown("operator"))
    done = run(tmp_path / "run", *asked)
    assert done.process.returncode == 0, done.process.stderr
    assert_same(done, plain)
    assert {str(one.address).partition("://")[0] for one in locked.servers.values()} == {"https"}


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


def test_law_3_with_tls_and_authentication(
    locked: Locked, plain: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL of a split server while the first round trains."""
    monkeypatch.setenv("MICROSFL_CREDENTIAL", locked.credential(OPERATOR))
    asked = (*ASKED, "--set", "run.name=killed", "--coordinator", locked.url, *locked.shown("operator"))
    with Popen(command(tmp_path / "run", *asked), stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            until(lambda: '"run": "killed", "state": "running"' in locked.coordinator.log.read_text(), "it trains")
            locked.servers["spare"].child.kill()
            _, errors = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert_same(Finished(tmp_path / "run", None), plain)  # type: ignore[arg-type]


def assert_same(one: Finished, other: Finished) -> None:
    for name in ("weights_sha256", "accuracy"):
        assert one.summary[name] == other.summary[name]
