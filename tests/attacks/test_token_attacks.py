"""Without a right token, no service says or does anything but that."""

from __future__ import annotations

from typing import Any

import pytest

from tests.attacks.estate import RUN, Estate, forward, step, update
from tests.attacks.forgery import FORGERIES, Forge

# What an operator may, one that reads and one that writes, at each service.
TARGETS: dict[str, tuple[tuple[str, str, Any], ...]] = {
    "coordinator": (
        ("GET", f"/api/runs/{RUN}", None),
        ("GET", "/api/identities", None),
        ("POST", f"/api/runs/{RUN}/stop", None),
        ("POST", "/api/tasks/poll", {"clients": ["alice"]}),
    ),
    "split": (
        ("GET", f"/v1/runs/{RUN}/versions/newest/weights", None),
        ("POST", "/v1/forward", forward(unit=3)),
        ("POST", "/v1/step", step()),
    ),
    "fed": (
        ("GET", f"/v1/runs/{RUN}/versions/newest/weights", None),
        ("POST", "/v1/updates", update(client="bob")),
    ),
}

every_service = pytest.mark.parametrize("service", TARGETS)


def refused(it: Estate, service: str, token: str | None, **headers: str) -> None:
    for method, path, body in TARGETS[service]:
        answer = it.send(service, method, path, body, token, headers)
        assert (answer.status, answer.code) == (401, "unauthenticated"), (method, path, answer.data)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert token is None or len(token) < 20 or token not in answer.message


@every_service
@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_token_is_refused(unchanged: Estate, service: str, forge: Forge) -> None:
    token = forge(unchanged, service)
    refused(unchanged, service, None, authorization=f"Bearer {token}".encode().decode("latin-1"))


@every_service
def test_none_is_refused(unchanged: Estate, service: str) -> None:
    refused(unchanged, service, None)


@every_service
@pytest.mark.parametrize("scheme", ["Basic", "Token", "", "Bearer Bearer", "Digest"])
def test_another_scheme_is_refused(unchanged: Estate, service: str, scheme: str) -> None:
    refused(unchanged, service, None, authorization=f"{scheme} {unchanged.token('operator', service)}".strip())


@every_service
def test_a_token_elsewhere_than_in_its_header_is_refused(unchanged: Estate, service: str) -> None:
    token = unchanged.token("operator", service)
    for method, path, body in TARGETS[service]:
        for key in ("token", "access_token", "authorization"):
            answer = unchanged.send(service, method, f"{path}?{key}={token}", body)
            assert answer.status == 401 or (key == "token" and answer.code == "forbidden")  # where links have theirs
    for name in ("x-authorization", "proxy-authorization", "x-access-token"):
        refused(unchanged, service, None, **{name: f"Bearer {token}"})


@pytest.mark.parametrize("service", ["split", "fed"])
def test_a_browsers_session_is_nothing_to_a_replica(unchanged: Estate, service: str) -> None:
    for of in (service, "coordinator"):
        refused(unchanged, service, None, cookie=f"microsfl_session={unchanged.token('operator', of)}")


@pytest.mark.parametrize(
    "cookie",
    ["microsfl_session=", "microsfl_session=x", 'microsfl_session="', "a=" + "b" * 9000, "\xff=1", "microsfl_session"],
)
def test_a_cookie_that_is_no_session_is_refused(unchanged: Estate, cookie: str) -> None:
    refused(unchanged, "coordinator", None, cookie=cookie)


@every_service
def test_and_a_right_token_is_taken(attacked: Estate, service: str) -> None:
    """The test of the tests: it is the token that the requests above lack."""
    method, path, body = TARGETS[service][0]
    assert attacked.send(service, method, path, body, attacked.token("operator", service)).status == 200


def test_what_an_identity_had_before_it_was_revoked_is_over_at_once_at_the_coordinator(unchanged: Estate) -> None:
    asked = f"grant_type=client_credentials&client_id=eve&client_secret={unchanged.secrets['eve']}"
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = unchanged.send("coordinator", "POST", "/api/tokens", asked.encode(), headers=form)
    assert (answer.status, answer.code) == (401, "unauthenticated")
    for path in ("/api/rotations", "/api/session"):
        answer = unchanged.send("coordinator", "POST", path, {"id": "eve", "secret": unchanged.secrets["eve"]})
        assert (answer.status, answer.code) == (401, "unauthenticated")


@pytest.mark.parametrize("identity", ["operator", "nobody", "", "' OR 1=1 --", "../operator", "*"])
@pytest.mark.parametrize("secret", ["", "x", "msfl_" + "A" * 43, "' OR 1=1 --", "\x00", "é" * 100])
def test_a_guessed_secret_is_refused(unchanged: Estate, identity: str, secret: str) -> None:
    asked = {"id": identity, "secret": secret}
    for path in ("/api/rotations", "/api/session"):
        answer = unchanged.send("coordinator", "POST", path, asked)
        assert (answer.status, answer.code) in [(401, "unauthenticated"), (422, "invalid_id"), (422, "invalid_setting")]
        assert "set-cookie" not in answer.headers
