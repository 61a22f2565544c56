"""Every role over TLS, as processes: who is let in, what is refused, and what whoever is refused is told."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from microsfl.cli import _exit_code
from microsfl.client.connections import Connections
from microsfl.client.http import Http
from microsfl.errors import Unreachable, UnsafeConnection
from microsfl.trust.authority import Authority
from microsfl.trust.credential import Credential
from microsfl.trust.tls import Inbound, Outbound
from tests.integration.launched import until
from tests.service.control_plane import served
from tests.service.test_roles import Process, role

DEADLINE_S = 60.0
HOSTS = ("localhost", "127.0.0.1")
HELLO = b'{"status":"ok"}'


@dataclass
class Pki:
    """A CA, a server's certificate, and a client's."""

    folder: Path
    authority: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.authority = Authority.in_folder(self.folder)
        self.server = self.authority.server(HOSTS)
        self.client = self.authority.client("alice")
        self.ca = str(self.folder / "ca.pem")

    def listening(self, *, mutual: bool = False) -> list[str]:
        wanted = ["--tls-client-ca", self.ca] if mutual else []
        return ["--tls-cert", str(self.server.cert), "--tls-key", str(self.server.key), *wanted]

    def calling(self, *, shows: bool = False) -> list[str]:
        shown = ["--tls-client-cert", str(self.client.cert), "--tls-client-key", str(self.client.key)] if shows else []
        return ["--tls-ca", self.ca, *shown]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("other"))


def coordinator(folder: Path, *arguments: str) -> list[str]:
    return ["coordinator", "--port", "0", "--records-url", f"sqlite:///{folder}/records.db", *arguments]


def microsfl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "microsfl", *arguments],
        capture_output=True, text=True, check=False, timeout=DEADLINE_S, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def mutual(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A coordinator that wants a certificate of its callers."""
    folder = tmp_path_factory.mktemp("mutual")
    with role(folder, *coordinator(folder, *pki.listening(mutual=True), *pki.calling())) as process:
        yield process


async def hello(scope: dict[str, object], _: object, send: object) -> None:
    assert scope["type"] in ("http", "lifespan")
    if scope["type"] == "http":
        headers = [(b"content-length", str(len(HELLO)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": HELLO})  # type: ignore[operator]


@contextmanager
def greeting(inbound: Inbound | None) -> Iterator[str]:
    """The URL of a server in this process."""
    with served(hello, inbound=inbound) as url:
        yield url


def inbound(pki: Pki, *, mutual: bool = False) -> Inbound:
    return Inbound(str(pki.server.cert), str(pki.server.key), pki.ca if mutual else None)


def asked(url: str, outbound: Outbound) -> bytes:
    http = Http(retry_s=0.5, connections=Connections(outbound))
    return http.request("GET", lambda: [url], "/").data


def test_a_connection_over_tls_is_kept(pki: Pki) -> None:
    connections = Connections(Outbound(pki.ca))
    with greeting(inbound(pki)) as url:
        kept = set()
        for _ in range(3):
            answer = connections.request("GET", f"{url}/", None, {}, connect_s=5, read_s=5)
            assert answer.data == HELLO
            kept |= {id(one.sock) for one in connections._idle["https", urlsplit(url).netloc, ""]}
        assert len(kept) == 1


def test_what_was_wrong_is_said_at_once(pki: Pki, other: Pki) -> None:
    shown = str(other.client.cert), str(other.client.key)
    elsewhere = pki.authority.server(["gpu1"])
    with (
        greeting(inbound(pki)) as url,
        greeting(inbound(pki, mutual=True)) as strict,
        greeting(Inbound(str(elsewhere.cert), str(elsewhere.key))) as misnamed,
        greeting(None) as plain,
    ):
        assert asked(url, Outbound(pki.ca)) == HELLO
        assert asked(strict, Outbound(pki.ca, str(pki.client.cert), str(pki.client.key))) == HELLO
        assert asked(plain, Outbound()) == HELLO
        wrong = [
            (url, Outbound(), r"of an authority that is not trusted here \(.+\)\. Name .* --tls-ca"),
            (url, Outbound(other.ca), "of an authority that is not trusted here"),
            (misnamed, Outbound(pki.ca), r"is not for 127\.0\.0\.1\. .*certs FOLDER --host 127\.0\.0\.1"),
            (strict, Outbound(pki.ca), "wants a certificate of its clients: name one with --tls-client-cert"),
            (strict, Outbound(pki.ca, *shown), r"does not take the certificate in \S+/client-alice\.pem"),
            (plain.replace("http:", "https:"), Outbound(pki.ca), "does not speak TLS: write http://"),
            (url.replace("https:", "http:"), Outbound(pki.ca), "speaks TLS: write https://"),
        ]  # fmt: skip
        for where, outbound, said in wrong:
            began = time.monotonic()
            http = Http(retry_s=DEADLINE_S, connections=Connections(outbound))
            with pytest.raises(UnsafeConnection, match=said):
                http.request("GET", lambda where=where: [where], "/")  # type: ignore[misc]
            assert time.monotonic() - began < DEADLINE_S / 2


def test_a_server_that_cannot_be_trusted_is_passed_over(pki: Pki, other: Pki) -> None:
    with greeting(inbound(other)) as false, greeting(inbound(pki)) as right:
        http = Http(retry_s=DEADLINE_S, connections=Connections(Outbound(pki.ca)))
        assert http.request("GET", lambda: [false, right], "/").data == HELLO
        http = Http(retry_s=0.3, connections=Connections(Outbound(pki.ca)))
        with pytest.raises(Unreachable):  # the dead one may come back
            http.request("GET", lambda: ["https://127.0.0.1:9", false], "/")


def test_one_that_answered_before_is_tried_again(pki: Pki, other: Pki) -> None:
    http = Http(retry_s=0.3, connections=Connections(Outbound(pki.ca)))
    with greeting(inbound(pki)) as url:
        http.request("GET", lambda: [url], "/")
        http.connections.outbound = Outbound(other.ca)
        http.connections._idle.clear()
        with pytest.raises(Unreachable, match="not trusted here"):
            http.request("GET", lambda: [url], "/")


@pytest.mark.parametrize("url", ["http://gpu1:8100", "http://10.0.0.7:80", "http://127.evil.example", "http://[::2]:1"])
def test_plain_http_goes_nowhere_else(url: str) -> None:
    with pytest.raises(UnsafeConnection, match=r"plain HTTP to another machine: whoever .* --insecure-http"):
        Outbound().context_for(url)
    assert Outbound(insecure_http=True).context_for(url) is None


REPLICA = ("split-server", "--store-url", "memory://", "--allow-anybody")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("coordinator", "--host", "0.0.0.0"), "host: on 0.0.0.0 others reach it, by plain HTTP"),
        ((*REPLICA, "--host", "10.0.0.7"), "host: on 10.0.0.7 others reach it, by plain HTTP"),
        ((*REPLICA, "--address", "http://gpu1:8100"), "address: http://gpu1:8100 is plain HTTP to another machine"),
        ((*REPLICA, "--coordinator", "http://control:8000"), "coordinator: http://control:8000 is plain HTTP"),
        (("client", "--ids=a", "--coordinator", "http://control:8000"), "coordinator: http://control:8000 is plain"),
        (("client", "--ids=a", "--metrics-port=0", "--metrics-host=::"), "metrics_host: on :: others reach it"),
        (("run", "--coordinator", "http://control:8000"), "http://control:8000 is plain HTTP to another machine"),
        (("runs", "--coordinator", "http://control:8000"), "http://control:8000 is plain HTTP to another machine"),
    ],
)  # fmt: skip
def test_commands_refuse_plain_http_to_other_machines(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code(arguments, None) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "--insecure-http" in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("coordinator", "--tls-key", "x.key"), "tls_key: without tls_cert there is no TLS"),
        (("coordinator", "--tls-client-ca", "ca.pem"), "tls_client_ca: without tls_cert there is no TLS"),
        (("runs", "--tls-client-key", "x.key"), "tls_client_key: its certificate is missing"),
        (("runs", "--tls-ca", "/no/ca.pem"), "tls_ca: /no/ca.pem cannot be read: No such file or directory"),
        (("coordinator", "--tls-cert", "/no/x.pem"), "tls_cert: /no/x.pem cannot be read: No such file or directory"),
        ((*REPLICA, "--tls-cert", "x.pem", "--address", "http://localhost:1"), "write https:// instead of http://"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_named(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code(arguments, None) == 2
    told = capsys.readouterr().err.splitlines()
    assert said in told[-1]


def test_the_flag_allows_plain_http(tmp_path: Path) -> None:
    arguments = coordinator(tmp_path, "--host", "0.0.0.0", "--allow-anybody", "--insecure-http")
    with role(tmp_path, *arguments) as process:
        assert process.address is not None
        assert process.address.startswith("http://0.0.0.0:")


def test_a_command_finds_what_it_needs_in_flags_environment_and_credential(
    mutual: Process, pki: Pki, other: Pki
) -> None:
    """The coordinator has no federation of its own, so it keeps a credential for this user: with its CA."""
    assert mutual.address is not None
    assert mutual.address.startswith("https://127.0.0.1:")
    ask = ("runs", "--json", "--coordinator", mutual.address)
    shown = {"MICROSFL_TLS_CLIENT_CERT": str(pki.client.cert), "MICROSFL_TLS_CLIENT_KEY": str(pki.client.key)}
    for right in (microsfl(*ask, *pki.calling(shows=True)), microsfl(*ask, **shown)):
        assert (right.returncode, right.stderr) == (0, "")
    for wrong, said in (
        (microsfl(*ask), "wants a certificate of its clients: name one with --tls-client-cert"),
        (microsfl(*ask, "--tls-ca", other.ca, **shown), "of an authority that is not trusted here"),
    ):
        assert wrong.returncode == 2
        assert said in wrong.stderr
        assert len(wrong.stderr.splitlines()) == 1


def test_the_metrics_of_a_client_go_over_tls(mutual: Process, pki: Pki, tmp_path: Path) -> None:
    assert mutual.address is not None
    arguments = ("client", "--ids=a", "--coordinator", mutual.address, "--metrics-port=0", *pki.calling(shows=True))
    with role(tmp_path, *arguments, *pki.listening(mutual=True)) as process:
        lines = [json.loads(line) for line in process.log.read_text().splitlines()]
        (url,) = [line["address"] for line in lines if line["event"] == "metrics"]
        let_in = Connections(Outbound(pki.ca, str(pki.client.cert), str(pki.client.key)))
        answer = let_in.request("GET", url, None, {}, connect_s=5, read_s=5)
        assert b"microsfl_client_hosted 1.0" in answer.data
        assert url.startswith("https://127.0.0.1:")
        with pytest.raises((UnsafeConnection, OSError)):
            Connections(Outbound(pki.ca)).request("GET", url, None, {}, connect_s=5, read_s=5)


def test_a_credential_brings_its_ca_along(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who makes a federation or enrols names the CA, and nobody has to any more after that."""
    made, mine = tmp_path / "operator.json", tmp_path / "mine.json"

    def says(*arguments: str, credential: Path = made, exits: int = 0) -> str:
        assert _exit_code([*arguments, "--credential", str(credential)], None) == exits
        told = capsys.readouterr()
        return told.err if exits else told.out

    says("admin", "init", str(tmp_path / "federation"), "--tls-ca", pki.ca)
    with role(tmp_path, *coordinator(tmp_path, "--federation", f"{tmp_path}/federation", *pki.listening())) as process:
        at = ("--coordinator", str(process.address))
        replace(Credential.read(made), coordinator=str(process.address)).write(made)  # it has taken a free port
        invited = json.loads(says("admin", "invite", "me", "--role=viewer", "--json", *at))
        monkeypatch.setenv("MICROSFL_TOKEN", invited["token"])
        assert "not trusted here" in says("enrol", *at, credential=mine, exits=2)
        says("enrol", *at, "--tls-ca", pki.ca, credential=mine)
        assert "new secret" in says("rotate", *at, credential=mine)
        assert json.loads(says("runs", "--json", "--folder", str(tmp_path), *at, credential=mine))["runs"] == []
    assert Credential.read(mine).tls_ca == Credential.read(made).tls_ca == Path(pki.ca).read_text()


def test_a_client_that_is_not_let_in_ends_at_once(mutual: Process, other: Pki) -> None:
    assert mutual.address is not None
    done = microsfl("client", "--ids=a", "--coordinator", mutual.address, "--tls-ca", other.ca, "--retry-s=600")
    assert done.returncode == 2
    assert done.stderr.startswith(f"microsfl: error: The certificate of {mutual.address} is of an authority")


def test_a_server_that_is_not_let_in_says_why(mutual: Process, pki: Pki, tmp_path: Path) -> None:
    """It waits: the coordinator may be started otherwise."""
    assert mutual.address is not None
    arguments = ("split-server", "--port=0", "--store-url", f"file://{tmp_path}/s", "--coordinator", mutual.address)
    with role(tmp_path, *arguments, *pki.calling()) as process:
        until(lambda: "coordinator not reached" in process.events(), "it has tried")
        assert "wants a certificate of its clients" in process.log.read_text()


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    with role(tmp_path, *coordinator(tmp_path, *pki.listening(), *pki.calling())) as process:
        before = shown_by(process)
        pki.authority.server(HOSTS)
        new = x509.load_pem_x509_certificate(pki.server.cert.read_bytes())
        until(lambda: shown_by(process) != before, "the new certificate is shown")
        assert shown_by(process) == new
        pki.server.key.write_text("not a key any more")
        until(lambda: "certificate not renewed" in process.events(), "the wrong key is noticed")
        assert shown_by(process) == new
        assert process.stop() == (0, "")


def shown_by(process: Process) -> x509.Certificate:
    parts = urlsplit(process.address)
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((str(parts.hostname), parts.port or 0)).encode())
