"""With the token of somebody who may not: every endpoint of every service, from the tables that the services have."""

from __future__ import annotations

import re

import pytest

from microsfl.services import coordinator_endpoints, replica_endpoints
from microsfl.trust.scopes import GRANTS, Role, Scope
from tests.attacks.estate import MEMBERS, RUN, Estate
from tests.world import spec_of

TABLES = {
    "coordinator": coordinator_endpoints.ENDPOINTS,
    "split": replica_endpoints.BODY,
    "fed": replica_endpoints.CLIENT_SIDE,
}
IN_PATH = {"run": RUN, "round": "0", "client": "alice", "version": "newest", "id": "bob", "name:path": "index.html"}
MEMBER = {Role.OPERATOR: "operator", Role.VIEWER: "viewer", Role.CLIENT: "alice", Role.SPLIT_SERVER: "split-0",
          Role.FED_SERVER: "fed"}  # fmt: skip
# Said once more and apart from the tables: all that a client, a server and a viewer get at the coordinator.
REACHED = {
    Role.CLIENT: {
        "POST /api/participants", "POST /api/tasks/poll", "POST /api/runs/{run}/reports", "GET /api/runs/{run}",
        "GET /api/participants",
    },
    Role.SPLIT_SERVER: {"POST /api/participants"},
    Role.FED_SERVER: {"POST /api/participants"},
}  # fmt: skip


def filled(path: str) -> str:
    return re.sub(r"\{([^}]+)\}", lambda found: IN_PATH[found[1]], path)


def protected(service: str) -> list[tuple[str, str, tuple[Scope, ...]]]:
    return [(*key, wanted) for key, wanted in TABLES[service].items() if Scope.PUBLIC not in wanted]


CASES = [(service, *case) for service in TABLES for case in protected(service)]
NAMES = [f"{service} {method} {path}" for service, method, path, _ in CASES]
# The tables of the replicas have the endpoints of both.
ELSEWHERE = {
    "split": {"/v1/updates", "/v1/aggregate"},
    "fed": {"/v1/forward", "/v1/backward", "/v1/step", "/v1/predict", "/v1/reduce", "/v1/partials"},
}


def is_there(service: str, path: str) -> bool:
    other = {"split": "/updates/", "fed": "/commits"}.get(service, "?")
    return path not in ELSEWHERE.get(service, ()) and other not in path


@pytest.mark.parametrize(("service", "method", "path", "wanted"), CASES, ids=NAMES)
def test_no_endpoint_answers_without_its_scope(
    unchanged: Estate, service: str, method: str, path: str, wanted: tuple[Scope, ...]
) -> None:
    if not is_there(service, path):
        assert unchanged.send(service, method, filled(path), {}).status in (404, 405)
        return
    assert unchanged.send(service, method, filled(path), {}).code == "unauthenticated"
    for role, member in MEMBER.items():
        if not GRANTS[role] & {*wanted}:
            answer = unchanged.ask(member, service, method, filled(path), {})
            assert (answer.status, answer.code) == (403, "forbidden"), role
            assert answer.message == f"A {role} may not {method} {filled(path)}."


@pytest.mark.parametrize("role", REACHED)
def test_what_a_role_reaches_at_the_coordinator_is_this(role: Role) -> None:
    reached = {f"{method} {path}" for _, method, path, wanted in CASES[: len(protected("coordinator"))]
               if GRANTS[role] & {*wanted}}  # fmt: skip
    assert reached == REACHED[role]


def test_only_operators_change_what_is_at_the_coordinator_and_only_they_see_who_is_in() -> None:
    for method, path, wanted in protected("coordinator"):
        may = {role for role in GRANTS if GRANTS[role] & {*wanted}}
        if method != "GET" and path not in ("/api/participants", "/api/tasks/poll", "/api/runs/{run}/reports"):
            assert may == {Role.OPERATOR}, path
        if Scope.ADMIN in wanted:
            assert may == {Role.OPERATOR}, path


@pytest.mark.parametrize("service", TABLES)
def test_a_method_that_is_in_no_table_gets_nowhere(unchanged: Estate, service: str) -> None:
    for method in ("HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "GETX"):  # the last one is none
        for path in {path for _, path, _ in protected(service) if (method, path) not in TABLES[service]}:
            answer = unchanged.send(service, method, filled(path))
            assert answer.status in (400, 401, 404, 405), (method, path)


@pytest.mark.parametrize("service", TABLES)
@pytest.mark.parametrize(
    "change", ["{}/", "/{}", "{}//", "{}%2F", "{}?", "{};a=b", "{}%0A", "{}%00", "/.{}", "/x/..{}", "http://h{}"]
)
def test_another_spelling_of_a_path_is_no_way_in(unchanged: Estate, service: str, change: str) -> None:
    for method, path, _ in protected(service):
        if is_there(service, path):
            answer = unchanged.send(service, method, change.format(filled(path)), {})
            assert answer.status in (307, 400, 401, 404, 405), (method, path, answer.data)


def test_whoever_was_invited_to_one_run_gets_nothing_of_another(unchanged: Estate) -> None:
    """mallory is a client like alice, of another run."""
    assert MEMBERS["mallory"][0] is Role.CLIENT
    for service, method, path, wanted in CASES:
        if "{run}" in path and GRANTS[Role.CLIENT] & {*wanted} and is_there(service, path):
            body = {"client": "mallory", "kind": "train", "round": 0, "error": {"code": "x", "message": "y"}}
            answer = unchanged.ask("mallory", service, method, filled(path), body if method == "POST" else None)
            assert (answer.status, answer.code) == (403, "forbidden"), (service, path)


OF_A_RUN = ("", "/metrics", "/profile", "/rounds", "/commits", "/partition", "/results.zip", "/weights", "/events")


def test_a_viewer_of_one_run_sees_no_other(unchanged: Estate) -> None:
    """stranger is a viewer of another run, of which there is nothing yet."""
    for path in ("/api/runs", "/api/overview"):
        seen = {one: unchanged.ask(one, "coordinator", "GET", path).json["runs"] for one in ("viewer", "stranger")}
        assert ([run["name"] for run in seen["viewer"]], seen["stranger"]) == ([RUN], [])
    for path in OF_A_RUN:
        answer = unchanged.ask("stranger", "coordinator", "GET", f"/api/runs/{RUN}{path}")
        assert (answer.status, answer.code) == (403, "forbidden")
    told = unchanged.ask("stranger", "coordinator", "GET", "/api/participants")
    assert {one["doing"] for one in told.json["participants"]} == {"idle"}
    assert f"of {RUN}" in unchanged.ask("viewer", "coordinator", "GET", "/api/participants").data.decode()


def test_a_viewer_of_one_run_hears_of_no_other(unchanged: Estate) -> None:
    """The live stream of the dashboard."""
    for member, hears in (("viewer", True), ("stranger", False)):
        heard = unchanged.first_bytes(member, "/api/events", b"event: participants")
        assert b"event: overview" in heard
        assert (RUN.encode() in heard) is hears


def test_a_client_is_told_of_no_other_client(unchanged: Estate) -> None:
    told = unchanged.ask("alice", "coordinator", "GET", "/api/participants").json["participants"]
    assert {one["id"] for one in told} == {"alice", "split-0", "fed"}


def test_an_operator_of_one_run_makes_no_other_and_invites_to_none(unchanged: Estate) -> None:
    spec = spec_of(run={"name": RUN, "rounds": 9}, data={"clients": 2}).model_dump(mode="json")
    answer = unchanged.ask("helper", "coordinator", "POST", "/api/runs", spec)
    assert (answer.status, answer.code) == (403, "forbidden")
    for runs in ([RUN], ["*"], ["other", RUN]):
        asked = {"id": "accomplice", "role": "client", "runs": runs}
        answer = unchanged.ask("helper", "coordinator", "POST", "/api/invitations", asked)
        assert (answer.status, answer.code) == (403, "forbidden")
