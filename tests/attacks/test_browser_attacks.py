"""By a page of another site, in the browser of somebody who is logged in to the dashboard."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import pytest

from tests.attacks.estate import RUN, Answer, Estate
from tests.attacks.test_scope_attacks import TABLES, filled

CHANGING = [(method, filled(path)) for method, path in TABLES["coordinator"] if method not in ("GET", "HEAD")]
ORIGINS = (
    "https://evil.example", "null", "http://localhost:9", "http://{host}.evil.example", "http://evil.example/{host}",
    "http://{host}@evil.example", "https://evil.example#{host}", "file://", "", "http://127.0.0.1", "evil",
)  # fmt: skip


def log_in(it: Estate, member: str, **headers: str) -> Answer:
    return it.send("coordinator", "POST", "/api/session", {"id": member, "secret": it.secrets[member]}, headers=headers)


def session(it: Estate, member: str) -> str:
    """The cookie as the browser sends it."""
    answer = log_in(it, member)
    assert answer.status == 200, answer.data
    found = SimpleCookie(answer.headers["set-cookie"])["microsfl_session"]
    return f"microsfl_session={found.value}"


def host(it: Estate) -> str:
    return it.urls["coordinator"].removeprefix("http://")


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize(("method", "path"), CHANGING, ids=[" ".join(one) for one in CHANGING])
def test_a_page_of_another_origin_changes_nothing(unchanged: Estate, method: str, path: str, origin: str) -> None:
    sent = {"cookie": session(unchanged, "operator"), "origin": origin.format(host=host(unchanged))}
    answer = unchanged.send("coordinator", method, path, {}, headers=sent)
    assert (answer.status, answer.code) == (403, "cross_origin"), answer.data


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_of_another_origin_changes_nothing(unchanged: Estate, kind: str) -> None:
    """What a page may send without asking first."""
    sent = {"cookie": session(unchanged, "operator"), "origin": "https://evil.example", "content-type": kind}
    answer = unchanged.send("coordinator", "POST", f"/api/runs/{RUN}/stop", b"", headers=sent)
    assert (answer.status, answer.code) == (403, "cross_origin")


def test_no_page_of_another_origin_reads_an_answer(unchanged: Estate) -> None:
    """Which takes headers that are never sent, also not to the question whether it may."""
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST", "cookie": ""}
    for method, path in (("GET", "/api/runs"), ("OPTIONS", f"/api/runs/{RUN}/stop"), ("GET", "/")):
        for cookie in ("", session(unchanged, "operator")):
            answer = unchanged.send("coordinator", method, path, headers={**asked, "cookie": cookie})
            assert not [name for name in answer.headers if name.startswith("access-control-")]
            assert answer.status != 200 or method == "GET"


def test_no_page_of_another_origin_logs_its_reader_in_or_out(unchanged: Estate) -> None:
    answer = log_in(unchanged, "operator", origin="https://evil.example")
    assert (answer.status, answer.code) == (403, "cross_origin")
    assert "set-cookie" not in answer.headers


def test_the_session_is_for_this_site_and_for_no_script(unchanged: Estate) -> None:
    found = SimpleCookie(log_in(unchanged, "operator").headers["set-cookie"])["microsfl_session"]
    assert (found["httponly"], found["samesite"], found["path"]) == (True, "strict", "/")
    assert found["domain"] == ""
    assert 0 < int(found["max-age"]) <= 12 * 3600


def test_the_dashboard_is_in_no_frame_and_runs_no_script_of_elsewhere(unchanged: Estate) -> None:
    answer = unchanged.send("coordinator", "GET", "/")
    policy = answer.headers["content-security-policy"]
    for rule in ("default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"):
        assert rule in policy
    assert "script-src" not in policy  # so it is default-src, which allows nothing that stands in the page
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("member", ["alice", "split-0", "fed", "eve"])
def test_nobody_but_people_logs_in(unchanged: Estate, member: str) -> None:
    answer = log_in(unchanged, member)
    assert answer.status in (401, 403)
    assert "set-cookie" not in answer.headers


def test_a_viewers_session_changes_nothing(unchanged: Estate) -> None:
    cookie = session(unchanged, "viewer")
    assert unchanged.send("coordinator", "GET", "/api/session", headers={"cookie": cookie}).json["role"] == "viewer"
    for method, path in CHANGING:
        public = path in ("/api/tokens", "/api/enrolments", "/api/rotations", "/api/session")
        body: Any = {}
        if not public:
            answer = unchanged.send("coordinator", method, path, body, headers={"cookie": cookie})
            assert (answer.status, answer.code) == (403, "forbidden"), path


def test_and_the_own_page_may(unchanged: Estate) -> None:
    """The test of the tests: with its own origin, the same request gets to what it asks for."""
    sent = {"cookie": session(unchanged, "operator"), "origin": unchanged.urls["coordinator"]}
    answer = unchanged.send("coordinator", "POST", "/api/runs/nothing/stop", headers=sent)
    assert (answer.status, answer.code) == (404, "run_not_found")
