"""Secrets are where they belong and nowhere else: not in logs, run folders, databases, error texts or process lists."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.integration.launched import all_up, command, pids, processes, until

SECRET = re.compile(rb"msfl_[A-Za-z0-9_-]{43}")
TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}")  # a JSON Web Token, of whomever
MAIN = (
    "import json, sys; from microsfl.config import CoordinatorSettings; from microsfl.services.coordinator import main;"
    "main(CoordinatorSettings.parse(json.loads(sys.argv[1])))"
)

AWS_SECRET = "the-key-of-both-areas"

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


def secrets_in(folder: Path) -> set[bytes]:
    """What is in the files of credentials and keys there."""
    found: set[bytes] = set()
    for path in folder.rglob("*.json"):
        text = path.read_bytes()
        found |= set(SECRET.findall(text))
        keys = json.loads(text).get("keys", {})
        for one in keys.values():
            key = one["key"]
            raw = base64.urlsafe_b64decode(key + "=")
            found |= {key.encode(), raw, raw.hex().encode()}
    return found


def leaked(content: bytes, secrets: set[bytes]) -> bool:
    return bool(SECRET.search(content) or TOKEN.search(content)) or any(one in content for one in secrets)


def shown_of(pid: int) -> bytes:
    """All that other programs of the same user see of a process: its command line and its environment."""
    return b"\0".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def in_part(shown: bytes) -> bool:
    """Whether a process that is for no area has the key of one."""
    return AWS_SECRET.encode() in shown and b"split-server" not in shown and b"fed-server" not in shown


def descendants(pid: int) -> dict[int, bytes]:
    """What is shown of those that the process started, and so on; some are gone by then."""
    parents: dict[int, int] = {}
    for one in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if one.name.isdigit():
                parents[int(one.name)] = int((one / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    shown = {}
    for one in found[1:]:
        with contextlib.suppress(OSError):
            shown[one] = shown_of(one)
    return shown


def files(folder: Path) -> Iterator[Path]:
    return (one for one in folder.rglob("*") if one.is_file())


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """Where a process of this test has its temporary files and its user's own."""
    for name in ("temporary", "home"):
        (tmp_path / name).mkdir()
    own = {"TMPDIR": str(tmp_path / "temporary"), "MICROSFL_HOME": str(tmp_path / "home")}
    return {**os.environ, **own}


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """The test of the tests."""
    (tmp_path / "federation.json").write_text(
        json.dumps(
            {
                "keys": {"k": {"key": base64.urlsafe_b64encode(b"k" * 32).decode().rstrip("=")}},
                "x": "msfl_" + "a" * 43,
            }
        )
    )
    secrets = secrets_in(tmp_path)
    assert {b"k" * 32, b"msfl_" + b"a" * 43} <= secrets
    for content in (b"..msfl_" + b"b" * 43, b"x" + b"k" * 32, b"Bearer eyJhbGciOiJF.eyJhdWQiOiJib2"):
        assert leaked(content, secrets)
    assert not leaked(b"msfl_short eyJ.eyJ", secrets)


WITH_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="the extra microsfl[ray] is not installed")


@pytest.mark.parametrize(
    "on", [(), pytest.param(("--on", "ray"), marks=[pytest.mark.slow, WITH_RAY])], ids=["processes", "ray"]
)
def test_a_run_on_this_machine_shows_no_secret(
    on: tuple[str, ...], tmp_path: Path, surroundings: dict[str, str]
) -> None:
    """And its services, which are real processes here, answer nobody without a token."""
    folder, temporary = tmp_path / "run", tmp_path / "temporary"
    surroundings["AWS_SECRET_ACCESS_KEY"] = AWS_SECRET
    process = subprocess.Popen(
        [*command(folder, "--set", "run.rounds=400", "--json", *on)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=surroundings,
    )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or all_up(folder), "every process is up")
        assert process.poll() is None
        secrets = secrets_in(temporary) | secrets_in(tmp_path / "home")
        assert len([one for one in secrets if SECRET.fullmatch(one)]) > 4  # operator, servers, clients
        assert len(secrets) > 7  # and the private key, in each of its forms
        private = [one for one in temporary.glob("microsfl-*") if (one / "federation.json").exists()]
        assert [one.stat().st_mode & 0o077 for one in private] == [0]
        assert {one.stat().st_mode & 0o077 for one in private[0].iterdir()} == {0}
        running = [process.pid, *pids(folder)]
        assert len(running) > 4
        assert [pid for pid in running if leaked(shown_of(pid), secrets)] == []
        below = descendants(process.pid)
        assert len(below) > 4
        assert [name for name, shown in below.items() if leaked(shown, secrets) or in_part(shown)] == []
        addresses = [one["address"] for one in processes(folder) if one["address"]]
        assert len(addresses) >= 4
        for address in addresses:
            for method, path in (("GET", "/api/runs"), ("GET", "/metrics"), ("POST", "/v1/forward")):
                answer = urllib3.request(method, address + path, retries=False)
                assert answer.status in (401, 404), (address, path)
            assert urllib3.request("GET", address + "/metrics", retries=False).status == 401
    finally:
        process.terminate()
        said = b"".join(process.communicate(timeout=60))
    assert not leaked(said, secrets)
    left = list(files(folder))
    assert {"spec.toml", "records.db"} & {one.name for one in left} or len(left) > 10
    assert [str(one) for one in left if leaked(one.read_bytes(), secrets)] == []
    assert [*files(temporary), *files(tmp_path / "home")] == []


@contextlib.contextmanager
def a_coordinator(folder: Path, surroundings: dict[str, str]) -> Iterator[tuple[str, Path, int]]:
    """Its URL, its log and its number."""
    settings = {"port": 0, "records_url": f"sqlite:///{folder}/records.db", "log_level": "debug"}
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, json.dumps(settings)], stdout=subprocess.PIPE, stderr=file, env=surroundings
        )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().decode().split()[-1], log, process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_an_enrolment_leaves_no_secret_behind(tmp_path: Path, surroundings: dict[str, str]) -> None:
    folder = tmp_path / "coordinator"
    folder.mkdir()
    http = urllib3.PoolManager(retries=False)

    def ask(path: str, body: Any, token: str = "") -> Any:
        sent = {"authorization": f"Bearer {token}"} if token else {}
        answer = http.request("POST", url + path, json=body, headers=sent)
        said.append(answer.data if answer.status >= 400 else b"")
        return answer.json()

    with a_coordinator(folder, surroundings) as (url, log, pid):
        said: list[bytes] = []
        operator = json.loads(next((tmp_path / "home" / "credentials").glob("*.json")).read_text())
        form = {"grant_type": "client_credentials", "client_id": "operator", "client_secret": operator["secret"]}
        token = http.request("POST", url + "/api/tokens", fields=form, encode_multipart=False).json()["access_token"]
        invitation = ask("/api/invitations", {"id": "carol", "role": "client"}, token)["token"]
        first = ask("/api/enrolments", {"token": invitation})["secret"]
        second = ask("/api/rotations", {"id": "carol", "secret": first})["secret"]
        # In the wrong place, too long, twice, as a list: none is repeated to whoever sent it.
        for secret in (operator["secret"], invitation, first, second):
            for body in (
                {"id": secret, "secret": secret}, {"id": "carol", "secret": [secret]}, {"id": "carol", "x": secret},
                {"id": "carol", "secret": secret * 9}, {"token": {"a": secret}}, {"token": secret},
            ):  # fmt: skip
                for path in ("/api/rotations", "/api/session", "/api/enrolments", "/api/invitations"):
                    ask(path, body, token)
        http.request("GET", url + f"/api/runs/{first}", headers={"authorization": f"Bearer {second}"})
        secrets = {one.encode() for one in (operator["secret"], invitation, first, second, token)}
        assert not leaked(shown_of(pid), secrets)
    assert len(said) > 90
    assert [one for one in said if leaked(one, secrets)] == []
    assert log.read_bytes()
    kept = {one.name: one.read_bytes() for one in files(folder)}
    assert "records.db" in kept
    assert [name for name, content in kept.items() if leaked(content, secrets)] == []
