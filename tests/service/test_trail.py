"""The audit trail of a living coordinator: who did what, who was refused, and what the command line says of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from microsfl.cli import cli
from microsfl.errors import StoreUnavailable
from microsfl.records import Entry, Records
from microsfl.services.refusals import FIRST_WINDOW_S, KEPT, LONGEST_WINDOW_S, Refusals
from microsfl.sync import keys
from microsfl.trust.credential import Credential
from microsfl.trust.keys import Federation
from tests.attacks.estate import NOW, RUN, Estate, backward, estate, forward, teach, update

Json = dict[str, Any]
TRAINED = {
    "train_loss": 1.0, "samples": 8, "batches": 1, "seconds": 0.5, "bytes_up": 1, "bytes_down": 1, "started_at": 1.0,
}  # fmt: skip


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Estate]:
    with estate(tmp_path) as it:
        yield it


def trail(it: Estate, action: str = "", after: int = 0) -> list[Json]:
    answer = it.ask("operator", "coordinator", "GET", f"/api/audit?after={after}")
    assert answer.status == 200, answer.data
    return [one for one in answer.json["entries"] if action in ("", one["action"])]


def told(it: Estate, action: str) -> list[tuple[str, str]]:
    return [(one["actor"], one["object"]) for one in trail(it, action)]


def test_it_says_how_the_federation_came_about(it: Estate) -> None:
    assert ("federation", "alice") in told(it, "identity taken over")
    started = wait_for(it, "coordinator started")
    assert started["details"]["keys"] == list(it.federation.keys)
    assert told(it, "revocation") == [("operator", "eve")]
    [created] = trail(it, "run created")
    assert (created["actor"], created["object"], created["at"]) == ("operator", RUN, NOW)
    assert len(created["details"]["spec_sha256"]) == 64
    assert told(it, "run started") == [("operator", RUN)]
    [began] = trail(it, "run began")
    assert (began["actor"], began["details"]) == ("coordinator", {"clients": ["alice", "bob"]})


def test_it_says_who_was_invited_enrolled_rotated_and_revoked_and_by_whom(it: Estate) -> None:
    asked = {"id": "carol", "role": "client", "runs": [RUN]}
    token = it.ask("operator", "coordinator", "POST", "/api/invitations", asked).json["token"]
    secret = it.send("coordinator", "POST", "/api/enrolments", {"token": token}).json["secret"]
    assert it.send("coordinator", "POST", "/api/rotations", {"id": "carol", "secret": secret}).status == 200
    assert it.ask("operator", "coordinator", "POST", "/api/identities/carol/revoke").status == 200
    found = [one for one in trail(it) if one["object"] == "carol"]
    assert [(one["action"], one["actor"]) for one in found] == [
        ("invitation", "operator"), ("enrolment", "carol"), ("rotation", "carol"), ("revocation", "operator"),
    ]  # fmt: skip
    assert found[0]["details"] == {"role": "client", "acts_as": ["carol"], "runs": [RUN]}
    assert not [one for one in (token, secret) if one in json.dumps(trail(it))]


def report(it: Estate, client: str, kind: str, metrics: Json) -> bool:
    body = {"client": client, "kind": kind, "round": 0, "metrics": metrics}
    accepted: bool = it.ask(client, "coordinator", "POST", f"/api/runs/{RUN}/reports", body).json["accepted"]
    return accepted


def trained_round(it: Estate) -> None:
    """Bob does what alice has done, both report, and the round is committed in both areas."""
    assert it.ask("bob", "split", "POST", "/v1/forward", forward(client="bob")).status == 200
    assert it.ask("bob", "split", "POST", "/v1/backward", backward(client="bob")).status == 200
    assert it.ask("bob", "fed", "POST", "/v1/updates", update(client="bob")).status == 200
    assert report(it, "alice", "train", TRAINED)
    assert not report(it, "alice", "train", TRAINED)  # and once more, which changes nothing
    assert report(it, "bob", "train", TRAINED)
    run = it.ask("operator", "coordinator", "GET", f"/api/runs/{RUN}").json
    while run["phase"] != "evaluating":
        assert run["state"] == "running", run
        query = f"?after={run['revision']}&wait_s=20"
        run = it.ask("operator", "coordinator", "GET", f"/api/runs/{RUN}{query}").json


def test_it_has_the_reports_that_counted_and_each_commit_with_its_hash(it: Estate) -> None:
    trained_round(it)
    reports = trail(it, "reports accepted")
    clients = [client for one in reports for clients in one["details"]["trained"].values() for client in clients]
    assert sorted(clients) == ["alice", "bob"]
    assert {one["actor"] for one in reports} == {"clients"}
    for action, area, counts in (
        ("body committed", keys.BODY, {"contributions": 2, "left_out": 0, "batches": 2}),
        ("client side committed", keys.CLIENT, {"clients": 2}),
    ):
        [entry] = trail(it, action)
        details = entry["details"]
        assert {name: details.pop(name) for name in ("round", "version")} == {"round": 0, "version": 1}
        file = next(it.folder.rglob(f"{area}/1/commit.json"))
        assert details.pop("commit_sha256") == sha256(file)
        assert details.items() >= counts.items()
        assert entry["actor"] == "coordinator"


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_it_says_who_stopped_and_resumed_a_run_and_not_who_did_not(it: Estate) -> None:
    for _ in range(2):  # the second time, there is nothing to stop
        assert it.ask("operator", "coordinator", "POST", f"/api/runs/{RUN}/stop").status == 200
    assert it.ask("operator", "coordinator", "POST", f"/api/runs/{RUN}/resume").status == 200
    assert told(it, "run stopped") == [("operator", RUN)]
    assert told(it, "run resumed") == [("operator", RUN)]


def test_a_change_of_keys_is_in_it(it: Estate) -> None:
    before = list(it.federation.keys)
    Federation.read(it.folder / "federation").with_new_key().write(it.folder / "federation")
    body = {"id": "fed", "role": "fed-server", "address": it.urls["fed"]}
    assert it.ask("fed", "coordinator", "POST", "/api/participants", body).json["trust"]
    it.federation = Federation.read(it.folder / "federation")
    entry = wait_for(it, "keys changed")
    assert (entry["details"]["before"], entry["details"]["keys"]) == (before, list(it.federation.keys))


def wait_for(it: Estate, action: str) -> Json:
    """What is written within a second, or with the refusals."""
    for _ in range(200):
        if found := trail(it, action):
            return found[-1]
        run = it.ask("operator", "coordinator", "GET", f"/api/runs/{RUN}").json
        it.ask("operator", "coordinator", "GET", f"/api/runs/{RUN}?after={run['revision']}&wait_s=0.2")
    raise AssertionError(f"no entry '{action}'")


def test_who_may_not_sees_nothing_of_it(it: Estate) -> None:
    for member in ("viewer", "alice", "split-0"):
        assert it.ask(member, "coordinator", "GET", "/api/audit").status == 403
    assert it.send("coordinator", "GET", "/api/audit").status == 401


# Refusals. Their clock is the test's.


class Held:
    """A trail in memory; `away`: it cannot be written."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.away = False

    def add(self, entries: list[Entry]) -> None:
        if self.away:
            raise StoreUnavailable
        self.entries += entries


def held() -> tuple[Held, list[float], Refusals]:
    kept, now = Held(), [0.0]
    return kept, now, Refusals(kept, lambda: NOW, lambda: now[0])  # type: ignore[arg-type]


def line(number: int = 0, status: int = 401) -> tuple[str, str, str, str, int]:
    return ("nobody", f"10.0.{number // 250}.{number % 250}", "GET", "/api/runs", status)


def test_a_flood_of_refusals_writes_little() -> None:
    """A thousand addresses, twice a second, for a day."""
    kept, now, refusals = held()
    for _ in range(24 * 3600 // 60):
        for number in range(1000):
            refusals.count(line(number), 120)
        now[0] += 60
        asyncio.run(refusals.flush(now=False))
    assert len(kept.entries) < 24 * 3600 / LONGEST_WINDOW_S + 10
    longest = max(len(json.dumps(one.details)) for one in kept.entries)
    assert longest < 200 * KEPT
    counted = sum(one["count"] for entry in kept.entries for one in entry.details["counts"])
    written = counted + sum(entry.details["more"] for entry in kept.entries)
    assert written > 0.99 * 1000 * 120 * 1440 - 1000 * 120 * 10  # none is lost, but for the last window
    assert len(kept.entries) * longest < 1_000_000


def test_a_single_refusal_is_written_after_ten_seconds_and_the_next_window_is_longer() -> None:
    kept, now, refusals = held()
    refusals.count(line())
    now[0] = FIRST_WINDOW_S - 1
    asyncio.run(refusals.flush(now=False))
    assert kept.entries == []
    now[0] = FIRST_WINDOW_S
    asyncio.run(refusals.flush(now=False))
    [entry] = kept.entries
    assert entry.details == {
        "counts": [
            {"who": "nobody", "from": "10.0.0.0", "method": "GET", "path": "/api/runs", "status": 401, "count": 1}
        ],
        "more": 0,
    }
    refusals.count(line())
    now[0] += 2 * FIRST_WINDOW_S - 1
    asyncio.run(refusals.flush(now=False))
    assert len(kept.entries) == 1
    now[0] += 1
    asyncio.run(refusals.flush(now=False))
    assert len(kept.entries) == 2


def test_what_cannot_be_written_stays_for_the_next_time() -> None:
    kept, _, refusals = held()
    kept.away = True
    for number in range(KEPT + 5):
        refusals.count(line(number))
    refusals.also(Entry(1.0, "a", "b", "c"))
    asyncio.run(refusals.flush())
    kept.away = False
    asyncio.run(refusals.flush())
    assert [one.action for one in kept.entries] == ["b", "requests counted"]
    assert (len(kept.entries[1].details["counts"]), kept.entries[1].details["more"]) == (KEPT, 5)
    asyncio.run(refusals.flush())
    assert len(kept.entries) == 2


def test_refusals_and_log_ins_are_in_the_trail_when_the_coordinator_has_ended(tmp_path: Path) -> None:
    with estate(tmp_path) as it:
        it.send("coordinator", "GET", "/api/runs")
        it.ask("alice", "coordinator", "GET", "/api/runs")
        it.ask("mallory", "coordinator", "GET", f"/api/runs/{RUN}")
        it.ask("bob", "coordinator", "POST", "/api/tasks/poll", {"clients": ["alice"]})
        it.ask("operator", "coordinator", "POST", "/api/invitations", {"id": "../x", "role": "client"})
        given = {"id": "operator", "secret": it.secrets["operator"]}
        assert it.send("coordinator", "POST", "/api/session", given).status == 200
        it.ask("split-0", "split", "GET", f"/v1/runs/{RUN}")
    records = Records(f"sqlite:///{tmp_path}/records.db")
    links, _ = records.trail.after(0)
    records.close()
    counts = [one for link in links if link.action == "requests counted" for one in json.loads(link.details)["counts"]]
    assert {(one["who"], one["method"], one["path"], one["status"]) for one in counts} == {
        ("nobody", "GET", "/api/runs", 401), ("alice", "GET", "/api/runs", 403),
        ("mallory", "GET", "/api/runs/{run}", 403), ("bob", "POST", "/api/tasks/poll", 403),
        ("operator", "POST", "/api/invitations", 422), ("operator", "POST", "/api/session", 200),
    }  # fmt: skip
    assert {one["from"] for one in counts} == {"127.0.0.1"}
    assert all(secret not in json.dumps(counts) for secret in it.secrets.values())


def test_a_split_server_counts_whom_it_refused(it: Estate) -> None:
    before = it.send("split", "GET", "/v1/health").json["refused"]
    it.send("split", "POST", "/v1/forward", forward())
    it.ask("bob", "split", "POST", "/v1/forward", forward())
    assert it.send("split", "GET", "/v1/health").json["refused"] == before + 2


# The command line


def command(it: Estate, *words: str) -> tuple[int, str]:
    credential = it.folder / "operator.json"
    Credential(it.urls["coordinator"], "operator", it.secrets["operator"]).write(credential)
    where = ["--coordinator", it.urls["coordinator"], "--credential", str(credential)]
    result = CliRunner().invoke(cli, ["audit", *words, *where], standalone_mode=False)
    assert result.exception is None, result.output
    return int(result.return_value or 0), result.output


def in_file(it: Estate, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        cli, ["audit", *words, "--records-url", f"sqlite:///{it.folder}/records.db"], standalone_mode=False
    )
    assert result.exception is None, result.output
    return int(result.return_value or 0), result.output


def test_verify_says_the_same_of_the_coordinator_and_of_its_database(it: Estate) -> None:
    it.clock[0] = time.time()
    code, asked = command(it, "verify", "--json")
    assert (code, json.loads(asked)["whole"]) == (0, True)
    assert in_file(it, "verify", "--json") == (0, asked)
    head = json.loads(asked)["hash"]
    it.ask("operator", "coordinator", "POST", f"/api/runs/{RUN}/stop")
    teach(it)
    for verify in (command, in_file):
        assert verify(it, "verify", "--head", head)[0] == 0
        code, said = verify(it, "verify", "--head", "f" * 64)
        assert (code, said[:24]) == (1, "broken: no entry has the")
    code, shown = command(it, "show")
    assert "run stopped" in shown
    assert in_file(it, "show") == (0, shown)
    rows = [json.loads(one) for one in command(it, "show", "--json", "--after", "3")[1].splitlines()]
    assert rows[0]["seq"] == 4


def test_verify_finds_a_changed_row_through_the_coordinator_too(it: Estate) -> None:
    it.clock[0] = time.time()
    with sqlite3.connect(it.folder / "records.db") as connection:
        connection.execute("UPDATE trail SET actor = 'bob' WHERE seq = 3")
    connection.close()
    for verify in (command, in_file):
        code, said = verify(it, "verify")
        assert (code, said.splitlines()) == (
            1, ["broken: entry 3 is not what it was when it was written: its hash is another one"],
        )  # fmt: skip
