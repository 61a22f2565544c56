"""With a right token of one's own: as somebody else, or with something that was used before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.attacks.estate import (
    NOW,
    RUN,
    Answer,
    Estate,
    backward,
    estate,
    forward,
    predict,
    step,
    teach,
    update,
)  # fmt: skip

FORM = {"content-type": "application/x-www-form-urlencoded"}


def forbidden(answer: Answer, *named: str) -> None:
    assert (answer.status, answer.code) == (403, "forbidden"), answer.data
    assert all(name in answer.message for name in named)


# Another client's identity. bob is in the run, too; mallory is in another one.


def report(client: str, kind: str = "train") -> dict[str, Any]:
    return {"client": client, "kind": kind, "round": 0, "error": {"code": "x", "message": "y"}}


def test_bob_takes_none_of_alices_tasks(unchanged: Estate) -> None:
    for clients in (["alice"], ["bob", "alice"], ["alice", "alice"]):
        forbidden(unchanged.ask("bob", "coordinator", "POST", "/api/tasks/poll", {"clients": clients}), "'alice'")


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_bob_reports_nothing_for_alice(unchanged: Estate, kind: str) -> None:
    path = f"/api/runs/{RUN}/reports"
    forbidden(unchanged.ask("bob", "coordinator", "POST", path, report("alice", kind)), "'alice'")


@pytest.mark.parametrize("name", ["alice", "split-0", "fed", "operator", "bobby"])
def test_bob_registers_as_nobody_else(unchanged: Estate, name: str) -> None:
    for role, address in (("client", None), ("split-server", "http://127.0.0.1:9"), ("fed-server", "http://h:9")):
        body = {"id": name, "role": role, "address": address}
        forbidden(unchanged.ask("bob", "coordinator", "POST", "/api/participants", body), f"'{name}'")


@pytest.mark.parametrize(
    ("member", "role"),
    [("mallory", "split-server"), ("mallory", "fed-server"), ("split-0", "fed-server"), ("fed", "split-server")],
)
def test_nobody_registers_as_a_server_of_another_kind(unchanged: Estate, member: str, role: str) -> None:
    """To which clients would send what they must not see."""
    body = {"id": member, "role": role, "address": "http://127.0.0.1:9"}
    forbidden(unchanged.ask(member, "coordinator", "POST", "/api/participants", body), member, role)


def test_a_split_server_takes_no_other_ones_place(unchanged: Estate) -> None:
    body = {"id": "split-1", "role": "split-server", "address": "http://127.0.0.1:9"}
    forbidden(unchanged.ask("split-0", "coordinator", "POST", "/api/participants", body), "'split-1'")


@pytest.mark.parametrize(
    "message", [forward(unit=1), backward(unit=1), step(unit=1)], ids=lambda one: type(one).__name__
)
def test_bob_trains_no_unit_of_alices(unchanged: Estate, message: Any) -> None:
    path = f"/v1/{type(message).__name__.lower()}"
    forbidden(unchanged.ask("bob", "split", "POST", path, message), "'alice'")


def test_bob_uploads_nothing_for_alice_and_reads_nothing_of_hers(unchanged: Estate) -> None:
    forbidden(unchanged.ask("bob", "fed", "POST", "/v1/updates", update(round=0)), "'alice'")
    path = f"/v1/runs/{RUN}/rounds/0/updates/alice"
    forbidden(unchanged.ask("bob", "fed", "GET", path), "'alice'")


def test_where_weights_are_averaged_nobody_gets_another_clients(unchanged: Estate) -> None:
    for member in ("alice", "bob", "operator"):
        forbidden(unchanged.ask(member, "fed", "GET", f"/v1/runs/{RUN}/rounds/0/updates/alice/weights"))


@pytest.mark.parametrize(
    ("service", "path", "message"),
    [
        ("split", "/v1/forward", forward(client="mallory", unit=1)),
        ("split", "/v1/backward", backward(client="mallory", unit=1)),
        ("split", "/v1/step", step(client="mallory")),
        ("split", "/v1/predict", predict()),
        ("fed", "/v1/updates", update(client="mallory")),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_mallory_has_no_part_in_a_run_without_an_invitation(
    unchanged: Estate, service: str, path: str, message: Any
) -> None:
    forbidden(unchanged.ask("mallory", service, "POST", path, message), "'mallory'", f"'{RUN}'")


def test_mallory_gets_none_of_the_runs_tasks(attacked: Estate) -> None:
    """The registration is right, and so is the question."""
    assert attacked.ask("mallory", "coordinator", "POST", "/api/participants", {"id": "mallory", "role": "client"})
    answer = attacked.ask("mallory", "coordinator", "POST", "/api/tasks/poll", {"clients": ["mallory"]})
    assert (answer.status, answer.json["tasks"]) == (200, [])
    assert attacked.ask("operator", "coordinator", "GET", f"/api/runs/{RUN}").json["clients"] == ["alice", "bob"]


def test_a_client_commits_no_round_that_the_coordinator_directs(unchanged: Estate) -> None:
    call = {"run": RUN, "round": 0}
    forbidden(unchanged.ask("alice", "split", "POST", "/v1/reduce", call), RUN)
    forbidden(unchanged.ask("mallory", "split", "POST", "/v1/reduce", call), RUN)
    for path in ("/v1/partials", "/v1/runs"):
        forbidden(unchanged.ask("alice", "split", "POST", path, call))
    for path in ("/v1/aggregate", "/v1/runs"):
        forbidden(unchanged.ask("alice", "fed", "POST", path, call))


# Replays. Each of these changes the federation that it has for itself.


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Estate]:
    with estate(tmp_path) as it:
        yield it


def invited(it: Estate, **more: Any) -> str:
    asked = {"id": "carol", "role": "client", "runs": [RUN], **more}
    answer = it.ask("operator", "coordinator", "POST", "/api/invitations", asked)
    assert answer.status == 201, answer.data
    return str(answer.json["token"])


def enrol(it: Estate, token: str) -> Answer:
    return it.send("coordinator", "POST", "/api/enrolments", {"token": token})


def is_right(it: Estate, identity: str, secret: str) -> bool:
    asked = {"grant_type": "client_credentials", "client_id": identity, "client_secret": secret}
    return it.send("coordinator", "POST", "/api/tokens", urlencode(asked).encode(), headers=FORM).status == 200


def unauthenticated(it: Estate, answer: Answer, before: Any) -> None:
    assert (answer.status, answer.code) == (401, "unauthenticated"), answer.data
    assert it.kept() == before


def test_an_invitation_is_used_once(own: Estate) -> None:
    token = invited(own)
    secret = enrol(own, token).json["secret"]
    before = own.kept()
    unauthenticated(own, enrol(own, token), before)
    assert is_right(own, "carol", secret)


def test_an_invitation_ends(own: Estate) -> None:
    token = invited(own, expires_s=60)
    own.clock[0] += 61
    unauthenticated(own, enrol(own, token), own.kept())


def test_an_invitation_ends_with_the_next_one(own: Estate) -> None:
    token = invited(own)
    second = invited(own)
    unauthenticated(own, enrol(own, token), own.kept())
    assert enrol(own, second).status == 201


def test_an_invitation_ends_when_who_was_invited_is_revoked(own: Estate) -> None:
    token = invited(own)
    assert own.ask("operator", "coordinator", "POST", "/api/identities/carol/revoke").status == 200
    unauthenticated(own, enrol(own, token), own.kept())


def test_a_rotation_that_is_replayed_changes_nothing(own: Estate) -> None:
    old = own.secrets["alice"]
    rotation = {"id": "alice", "secret": old}
    new = own.send("coordinator", "POST", "/api/rotations", rotation).json["secret"]
    assert is_right(own, "alice", new)
    before = own.kept()
    unauthenticated(own, own.send("coordinator", "POST", "/api/rotations", rotation), before)
    assert not is_right(own, "alice", old)
    assert is_right(own, "alice", new)


def test_a_replayed_unit_update_and_report_change_nothing(own: Estate) -> None:
    before = own.kept()
    assert own.ask("alice", "split", "POST", "/v1/forward", forward()).status == 200
    assert own.ask("alice", "split", "POST", "/v1/backward", backward()).status == 200
    assert own.ask("alice", "fed", "POST", "/v1/updates", update()).status == 200
    assert own.kept() == before
    said = {**report("alice"), "round": 7}
    assert own.ask("alice", "coordinator", "POST", f"/api/runs/{RUN}/reports", said).json == {"accepted": False}
    assert own.kept() == before


def test_after_a_revocation_every_service_refuses_the_token_that_it_took_before(own: Estate) -> None:
    tokens = {service: own.token("bob", service) for service in own.urls}
    requests = {
        "coordinator": ("GET", f"/api/runs/{RUN}", None),
        "split": ("POST", "/v1/predict", predict()),
        "fed": ("GET", f"/v1/runs/{RUN}", None),
    }
    for service, request in requests.items():
        assert own.send(service, *request, token=tokens[service]).status == 200
    own.clock[0] += 1
    assert own.ask("operator", "coordinator", "POST", "/api/identities/bob/revoke").status == 200
    teach(own)  # as the next heartbeat does
    before = own.kept()
    for service, request in requests.items():
        unauthenticated(own, own.send(service, *request, token=tokens[service]), before)
    assert not is_right(own, "bob", own.secrets["bob"])


def test_a_token_is_over_after_five_minutes_and_the_leeway(own: Estate) -> None:
    token = own.token("alice", "split")
    own.clock[0] = NOW + 330
    assert own.send("split", "POST", "/v1/predict", predict(), token).status == 200
    own.clock[0] = NOW + 331
    assert own.send("split", "POST", "/v1/predict", predict(), token).status == 401
