"""Certificates: what the CA makes is what TLS checks, and a file that is wrong is named."""

from __future__ import annotations

import json
import os
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from microsfl.cli import _exit_code
from microsfl.errors import InvalidSetting
from microsfl.trust import authority
from microsfl.trust.authority import Authority, Written
from microsfl.trust.tls import Inbound, Outbound

HOSTS = ("gpu1.example.org", "localhost", "10.0.0.7", "::1")


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority.in_folder(tmp_path / "ca")


@pytest.fixture
def made(ca: Authority) -> Written:
    return ca.server(HOSTS)


def handshake(server: Inbound, client: Outbound, host: str) -> ssl.SSLObject:
    """The server's end of a connection between the two, which needs no socket.

    Raises:
        ssl.SSLError: when one of them does not want the other.
    """
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = client.context()
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # as newer versions of Python have it by default
    ends = [
        context.wrap_bio(back, there, server_hostname=host),
        server.context.wrap_bio(there, back, server_side=True),
    ]
    waiting = list(ends)
    while waiting:
        end = waiting.pop(0)
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(end)
    return ends[1]


def inbound(pair: Written, client_ca: Path | None = None) -> Inbound:
    return Inbound(str(pair.cert), str(pair.key), None if client_ca is None else str(client_ca))


def outbound(folder: Path, shown: Written | None = None) -> Outbound:
    pair = (None, None) if shown is None else (str(shown.cert), str(shown.key))
    return Outbound(str(folder / "ca.pem"), *pair)


@pytest.mark.parametrize("host", HOSTS)
def test_a_server_is_known_by_each_of_its_names(ca: Authority, made: Written, host: str) -> None:
    assert handshake(inbound(made), outbound(ca.folder), host).version() == "TLSv1.3"


@pytest.mark.parametrize("host", ["gpu2.example.org", "example.org", "10.0.0.8", "::2"])
def test_a_server_is_not_known_by_another_name(ca: Authority, made: Written, host: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        handshake(inbound(made), outbound(ca.folder), host)


def test_a_server_of_another_ca_is_not_trusted(made: Written, tmp_path: Path) -> None:
    other = Authority.in_folder(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        handshake(inbound(made), outbound(other.folder), "localhost")


def test_the_certificate_of_a_client_is_for_no_server(ca: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        handshake(inbound(ca.client("alice")), outbound(ca.folder), "alice")


def test_a_client_shows_a_certificate_of_the_right_ca(ca: Authority, made: Written, tmp_path: Path) -> None:
    other = Authority.in_folder(tmp_path / "other")
    server = inbound(made, ca.folder / "ca.pem")
    for shown in (ca.client("alice"), made):  # a server calls others with its own
        seen = handshake(server, outbound(ca.folder, shown), "localhost").getpeercert()
        assert seen is not None
        assert seen["subject"] == ((("commonName", "client-alice" if shown != made else HOSTS[0]),),)
    for wrong in (None, other.client("alice")):
        with pytest.raises(ssl.SSLError, match=r"peer did not return|certificate verify failed"):
            handshake(server, outbound(ca.folder, wrong), "localhost")


def test_nobody_else_reads_a_key_and_everybody_may_read_a_certificate(ca: Authority, made: Written) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ca.folder.iterdir()}
    assert modes == {
        "ca.key": 0o600, "ca.pem": 0o644, "gpu1.example.org.key": 0o600, "gpu1.example.org.pem": 0o644
    }  # fmt: skip
    assert made.cert.name == "gpu1.example.org.pem"
    assert stat.S_IMODE(ca.folder.stat().st_mode) == 0o700


def test_a_ca_is_made_once_and_lasts_longer_than_what_it_signs(ca: Authority) -> None:
    again = Authority.in_folder(ca.folder)
    assert again.certificate == ca.certificate
    now, ends = datetime.now(UTC), ca.certificate.not_valid_after_utc
    assert timedelta(days=3649) < ends - now < timedelta(days=3651)
    for days, wanted in ((30, now + timedelta(days=30)), (9999, ends)):
        leaf = x509.load_pem_x509_certificate(again.server(["localhost"], days).cert.read_bytes())
        assert abs(leaf.not_valid_after_utc - wanted) < timedelta(minutes=1)


def test_a_folder_that_is_no_whole_ca_is_named(ca: Authority, tmp_path: Path) -> None:
    other = Authority.in_folder(tmp_path / "other")
    key = (ca.folder / "ca.key").read_bytes()
    (ca.folder / "ca.key").write_bytes((other.folder / "ca.key").read_bytes())
    with pytest.raises(InvalidSetting, match=r"ca\.key is not the key of the CA in .*ca\.pem"):
        Authority.in_folder(ca.folder)
    (ca.folder / "ca.key").unlink()
    with pytest.raises(InvalidSetting, match=r"half of a CA: ca\.key is missing"):
        Authority.in_folder(ca.folder)
    (ca.folder / "ca.key").write_bytes(key)
    with pytest.raises(InvalidSetting, match="chmod 600"):
        Authority.in_folder(ca.folder)


@pytest.mark.parametrize(
    "host", ["", "http://gpu1", "gpu1:8100", "300.1.1.1", "-x", "a..b", "x" * 254, "ca", "ü", "\u212a1"]
)
def test_what_is_no_host_is_refused_before_anything_is_written(host: str, ca: Authority) -> None:
    with pytest.raises(InvalidSetting, match="--host: "):
        ca.server([host])
    assert {path.name for path in ca.folder.iterdir()} == {"ca.pem", "ca.key"}


def test_the_command_says_what_to_start_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pki"
    assert (
        _exit_code(["admin", "certs", str(folder), "--host", "gpu1", "--host", "::1", "--client", "alice"], None) == 0
    )
    assert capsys.readouterr().out.splitlines() == [
        f"server gpu1, ::1: --tls-cert {folder}/gpu1.pem --tls-key {folder}/gpu1.key",
        f"client alice: --tls-client-cert {folder}/client-alice.pem --tls-client-key {folder}/client-alice.key",
        f"whoever calls a server: --tls-ca {folder}/ca.pem",
    ]
    assert _exit_code(["admin", "certs", str(folder), "--client", "bob", "--json"], None) == 0
    bob = {"cert": f"{folder}/client-bob.pem", "key": f"{folder}/client-bob.key"}
    assert json.loads(capsys.readouterr().out) == {"ca": f"{folder}/ca.pem", "server": None, "clients": {"bob": bob}}
    assert _exit_code(["admin", "certs", str(folder)], None) == 2
    assert "--host" in capsys.readouterr().err
    assert _exit_code(["admin", "certs", str(folder), "--client", "../alice"], None) == 2
    assert "'../alice' is no name" in capsys.readouterr().err


def missing(pair: Written, _: Authority) -> None:
    pair.cert.unlink()


def missing_key(pair: Written, _: Authority) -> None:
    pair.key.unlink()


def no_certificate(pair: Written, _: Authority) -> None:
    pair.cert.write_bytes(pair.key.read_bytes())


def no_key(pair: Written, _: Authority) -> None:
    pair.key.write_bytes(pair.cert.read_bytes())


def another_key(pair: Written, ca: Authority) -> None:
    pair.key.write_bytes(ca.client("bob").key.read_bytes())


def encrypted_key(pair: Written, _: Authority) -> None:
    key = load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))


def expired(_: Written, ca: Authority) -> None:
    ca.server(HOSTS, days=-1)


SPOILT = {
    missing: r"tls_cert: \S+\.pem cannot be read: No such file",
    missing_key: r"tls_key: \S+\.key cannot be read: No such file",
    no_certificate: r"tls_cert: \S+\.pem has no certificate in PEM",
    no_key: r"tls_key: \S+\.key has no private key in PEM",
    another_key: r"tls_key: \S+\.key is not the key of the certificate in \S+\.pem",
    encrypted_key: r"tls_key: \S+\.key is encrypted; name a key without a passphrase",
    expired: r"tls_cert: the certificate in \S+\.pem ended on \d{4}-\d\d-\d\d; renew it",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda one: one.__name__)
def test_the_wrong_file_of_a_pair_is_named(
    spoil: Callable[[Written, Authority], None], ca: Authority, made: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "EARLIER", timedelta(days=9))  # or one that has ended would begin after its end
    before = inbound(made)
    shown = before.context
    spoil(made, ca)
    with pytest.raises(InvalidSetting, match=SPOILT[spoil]):
        inbound(made)
    with pytest.raises(InvalidSetting, match=SPOILT[spoil].replace("tls_", "tls_client_")):
        outbound(ca.folder, made).context()
    with pytest.raises(InvalidSetting, match=SPOILT[spoil]):
        before.renew()
    assert not before.renew()  # said once
    assert before.context is shown
    assert handshake(before, outbound(ca.folder), "localhost").version() == "TLSv1.3"


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\xff\xfe"])
def test_a_file_without_authorities_is_named(content: bytes | None, made: Written, tmp_path: Path) -> None:
    file = tmp_path / "list.pem"
    if content is not None:
        file.write_bytes(content)
    what = "cannot be read: No such file" if content is None else "has no certificate in PEM"
    with pytest.raises(InvalidSetting, match=rf"tls_client_ca: \S+/list\.pem {what}"):
        inbound(made, file)
    with pytest.raises(InvalidSetting, match=rf"tls_ca: \S+/list\.pem {what}"):
        Outbound(str(file)).context()


def later(*paths: Path) -> None:
    """Let the files be newer than a clock of coarse steps may have it."""
    for path in paths:
        now = path.stat().st_mtime_ns + 10**9
        os.utime(path, ns=(now, now))


def serial(pair: Written) -> str:
    return f"{x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number:X}"


def test_a_server_shows_a_renewed_certificate(ca: Authority, made: Written) -> None:
    server, client = inbound(made), outbound(ca.folder)
    assert not server.renew()
    before = serial(made)
    ca.server(HOSTS)
    later(made.cert, made.key)
    assert server.renew()
    assert serial(made) != before
    end = handshake(server, client, "localhost")
    assert end.version() == "TLSv1.3"
    # What the client was shown: a context that trusts this certificate alone takes it.
    pinned = Outbound(str(made.cert))
    pinned.context().verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    assert handshake(server, pinned, "localhost").version() == "TLSv1.3"


def test_whoever_calls_shows_a_renewed_certificate(ca: Authority, made: Written) -> None:
    server, client = inbound(made, ca.folder / "ca.pem"), outbound(ca.folder, made)
    first = client.context()
    assert client.context() is first
    ca.server(HOSTS)
    later(made.cert, made.key)
    assert client.context() is not first
    seen = handshake(server, client, "localhost").getpeercert()
    assert seen is not None
    assert int(str(seen["serialNumber"]), 16) == int(serial(made), 16)
    second = client.context()
    made.key.write_text("half")
    later(made.key)
    assert client.context() is second


def test_a_credential_has_authorities_which_a_file_goes_before(ca: Authority, made: Written, tmp_path: Path) -> None:
    server, text = inbound(made), (ca.folder / "ca.pem").read_text()
    vouched = Outbound()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, vouched, "localhost")
    vouched.vouch(text)
    assert handshake(server, vouched, "localhost").version() == "TLSv1.3"
    named = outbound(Authority.in_folder(tmp_path / "other").folder)
    named.vouch(text)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, named, "localhost")
