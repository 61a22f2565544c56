"""Paths, SQL, HTML and line breaks wherever a caller may put text, by a caller who may ask."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from microsfl.errors import LONGEST, InvalidId
from microsfl.wire.messages import Message
from microsfl.wire.tensors import encode
from tests.attacks.estate import AREAS, RUN, Answer, Estate, backward, estate, forward, predict, step, update
from tests.attacks.test_wire_attacks import MALFORMED, packet

TRICKS = {
    "a folder above": "../../../etc/passwd",
    "two dots": "..",
    "dots inside": "a..b",
    "a folder": "a/b",
    "a backslash": "..\\..\\windows",
    "absolute": "/etc/passwd",
    "encoded": "%2e%2e%2f",
    "a URL": "file:///etc/passwd",
    "a NUL": "a\x00.json",
    "a line break": "a\r\nset-cookie: microsfl_session=x",
    "SQL": "x'; DROP TABLE runs; --",
    "SQL that is true": "' OR '1'='1",
    "HTML": "<script>alert(1)</script>",
    "an image": '"><img src=x onerror=alert(1)>',
    "a template": "{{7*7}}${7*7}",
    "a format": "{0.__class__}%s%n",
    "a shell": "$(touch /tmp/pwned);`id`|x",
    "right to left": "\u202egnp.exe",
    "look-alike": "аlice",
    "long": "a" * 65,
    "very long": "a" * 5000,
    "nothing": "",
    "a blank": " ",
    "all": "*",
    "an option": "--help",
}
trick = pytest.mark.parametrize("text", TRICKS.values(), ids=TRICKS.keys())

IN_PATH = (
    ("coordinator", "GET", "/api/runs/{}"),
    ("coordinator", "GET", "/api/runs/{}/metrics"),
    ("coordinator", "GET", "/api/runs/{}/results.zip"),
    ("coordinator", "GET", "/api/runs/{}/weights"),
    ("coordinator", "POST", "/api/runs/{}/stop"),
    ("coordinator", "POST", "/api/identities/{}/revoke"),
    ("coordinator", "GET", "/static/{}"),
    ("split", "GET", "/v1/runs/{}"),
    ("split", "GET", "/v1/runs/{}/commits"),
    ("split", "GET", "/v1/runs/{}/versions/newest/weights"),
    ("split", "GET", "/v1/runs/toy/versions/{}/weights"),
    ("fed", "GET", "/v1/runs/{}/rounds/0/updates/alice"),
    ("fed", "GET", "/v1/runs/toy/rounds/{}/updates/alice"),
    ("fed", "GET", "/v1/runs/toy/rounds/0/updates/{}"),
    ("fed", "GET", "/v1/runs/toy/rounds/0/updates/{}/weights"),
)


def refused(answer: Answer) -> None:
    """An error of the one shape, which is no page of HTML and has nothing of the inside."""
    assert 400 <= answer.status < 500, (answer.status, answer.data)
    assert answer.headers["content-type"] == "application/json"
    assert "set-cookie" not in answer.headers
    assert len(answer.message) <= LONGEST
    assert answer.code
    assert not [word for word in ("Traceback", ".py", "sqlite", "SELECT", "root:") if word in answer.message]


@trick
def test_in_a_path(unchanged: Estate, text: str) -> None:
    for service, method, path in IN_PATH:
        for written in {quote(text, safe=""), quote(text, safe="/.")}:
            answer = unchanged.ask("operator", service, method, path.format(written))
            if answer.status == 307:  # "nothing" makes another path, and it is said which one is meant
                assert text == ""
                continue
            refused(answer)


@trick
def test_in_a_query(unchanged: Estate, text: str) -> None:
    written = quote(text, safe="")
    for path in ("?after={}", "?wait_s={}", "?history_from={}", "/profile?from_round={}", "/commits?after={}"):
        answer = unchanged.ask("operator", "coordinator", "GET", f"/api/runs/{RUN}" + path.format(written))
        refused(answer)
    refused(unchanged.ask("operator", "split", "GET", f"/v1/runs/{RUN}/commits?after={written or 'x'}"))


@trick
def test_in_an_id_of_a_body(unchanged: Estate, text: str) -> None:
    problem, hand = {"code": "x", "message": "y"}, {"run": "a", "client": "a", "kind": "train", "round": 0}
    bodies: tuple[tuple[str, Any], ...] = (
        ("/api/participants", {"id": text, "role": "client"}),
        ("/api/participants", {"id": "z", "role": text}),
        ("/api/participants", {"id": "z", "role": "split-server", "address": text}),
        ("/api/tasks/poll", {"clients": [text]}),
        ("/api/tasks/poll", {"clients": ["alice"], "in_hand": [{**hand, "run": text}]}),
        ("/api/tasks/poll", {"clients": ["alice"], "in_hand": [{**hand, "client": text}]}),
        (f"/api/runs/{RUN}/reports", {"client": text, "kind": "train", "round": 0, "error": problem}),
        (f"/api/runs/{RUN}/reports", {"client": "alice", "kind": text, "round": 0, "error": problem}),
        ("/api/runs", {"run": {"name": text}}),
        ("/api/runs", {"model": {"name": text or "?"}}),
        ("/api/resolve", {"run": {"name": text}}),
        ("/api/resolve", {"data": {"dataset": text}}),
        ("/api/resolve", {text or "?": {}}),
        ("/api/invitations", {"id": text, "role": "client"}),
        ("/api/invitations", {"id": "z", "role": text}),
        ("/api/invitations", {"id": "z", "role": "client", "acts_as": [text]}),
        ("/api/enrolments", {"token": text}),
        ("/api/rotations", {"id": text, "secret": "x"}),
        ("/api/session", {"id": "operator", "secret": text}),
    )
    for path, body in bodies:
        refused(unchanged.ask("operator", "coordinator", "POST", path, body))
    if text != "*":  # which an invitation has for all runs
        refused(unchanged.ask("operator", "coordinator", "POST", "/api/invitations",
                              {"id": "z", "role": "client", "runs": [text]}))  # fmt: skip


@trick
def test_in_a_form(unchanged: Estate, text: str) -> None:
    good = {"grant_type": "client_credentials", "client_id": "alice", "client_secret": "x"}
    for name in (*good, "audience"):
        form = "&".join(f"{key}={quote(value, safe='')}" for key, value in {**good, name: text}.items())
        kind = {"content-type": "application/x-www-form-urlencoded"}
        refused(unchanged.send("coordinator", "POST", "/api/tokens", form.encode(), headers=kind))


HEADERS = (
    "last-event-id", "traceparent", "accept", "accept-encoding", "content-encoding", "content-type", "x-forwarded-for",
    "x-forwarded-host", "x-forwarded-proto", "x-http-method-override", "x-original-url", "if-none-match", "range",
    "referer", "user-agent", "te", "via", "cookie", "forwarded", "x-real-ip",
)  # fmt: skip


@trick
@pytest.mark.parametrize("name", HEADERS)
def test_in_a_header(unchanged: Estate, name: str, text: str) -> None:
    """They change nothing of an answer. What no header may have does not leave the client."""
    value = text.replace("\r\n", " ").replace("\x00", " ").encode().decode("latin-1")
    answer = unchanged.ask("alice", "coordinator", "GET", f"/api/runs/{RUN}", headers={name: value})
    assert (answer.status, answer.json["name"]) == (200, RUN)
    assert "set-cookie" not in answer.headers
    refused(unchanged.ask("alice", "coordinator", "POST", "/api/invitations", {"id": "x"}, headers={name: value}))
    assert unchanged.ask("alice", "split", "GET", f"/v1/runs/{RUN}", headers={name: value}).status == 200
    assert unchanged.ask("alice", "split", "POST", "/v1/predict", predict(), headers={name: value}).status == 200


@trick
@pytest.mark.parametrize("field", ["run", "client"])
def test_in_an_id_of_a_message(unchanged: Estate, field: str, text: str) -> None:
    messages: tuple[tuple[str, str, Message], ...] = (
        ("split", "/v1/forward", forward(unit=5)),
        ("split", "/v1/backward", backward(unit=5)),
        ("split", "/v1/step", step(unit=5)),
        ("split", "/v1/predict", predict()),
        ("fed", "/v1/updates", update()),
    )
    for service, path, message in messages:
        if not hasattr(message, field):
            continue
        with pytest.raises((InvalidId, ValueError)):
            type(message)(**{**dict(message), field: text})
        fields = {name: value for name, value in dict(message).items() if name not in message._groups}
        tensors = {f"{group}.{name}": one for group in message._groups for name, one in getattr(message, group).items()}
        body = encode(tensors, {"type": type(message).__name__, **fields, field: text})
        refused(unchanged.ask("operator", service, "POST", path, body))


@trick
def test_in_a_call_of_the_data_plane(unchanged: Estate, text: str) -> None:
    """As the coordinator would send it."""
    for service, paths in (("split", ("/v1/reduce", "/v1/partials")), ("fed", ("/v1/aggregate",))):
        own = unchanged.identities.own_token(AREAS[service])
        for path in paths:
            call = {"run": text, "round": 0, "part": 0, "parts": 1, "clients": []}
            refused(unchanged.send(service, "POST", path, call, own))
            refused(unchanged.send(service, "POST", path, {**call, "run": RUN, "round": text}, own))
        refused(unchanged.send(service, "POST", "/v1/runs", {"spec": {"run": {"name": text}}}, own))


@trick
def test_in_the_name_of_a_tensor(unchanged: Estate, text: str) -> None:
    """Where a model takes one tensor, its name says nothing; nowhere does it become a key or a path."""
    body = encode({f"activations.{text}": predict().activations["0"]}, {"type": "Predict", "run": RUN})
    answer = unchanged.ask("alice", "split", "POST", "/v1/predict", body)
    if answer.status != 200:
        refused(answer)
    weights = dict(update(client="bob").weights)
    weights[text] = weights.pop(next(iter(weights)))
    refused(unchanged.ask("bob", "fed", "POST", "/v1/updates", update(client="bob", weights=weights)))


def test_text_that_anybody_may_write_comes_back_as_it_was_and_as_nothing_but_text(tmp_path: Any) -> None:
    with estate(tmp_path) as it:
        for name, text in TRICKS.items():
            text = text[:4000]
            body = {"id": "alice", "role": "client", "info": {name: text, text: "x"}}
            answer = it.ask("alice", "coordinator", "POST", "/api/participants", body)
            assert answer.status == 200, name
            assert answer.json["info"] == {name: text, text: "x"}
            assert answer.headers["content-type"] == "application/json"
        for client, text in (("alice", TRICKS["SQL"]), ("bob", TRICKS["HTML"])):
            said = {"client": client, "kind": "train", "round": 0, "error": {"code": text, "message": text}}
            assert it.ask(client, "coordinator", "POST", f"/api/runs/{RUN}/reports", said).status == 200
        run = it.ask("operator", "coordinator", "GET", f"/api/runs/{RUN}")
        assert (run.json["state"], run.headers["content-type"]) == ("failed", "application/json")
        assert TRICKS["SQL"] in run.json["reason"]
        assert [row[0] for row in it.kept()["tables"]["runs"]] == [RUN]


# Bodies of tensors. What is wrong with each is in test_wire_attacks.py; here it meets the services.

EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
BOMBS = {
    "a zip": b"PK\x03\x04" + b"\0" * 60,
    "gzip": b"\x1f\x8b\x08" + b"\0" * 60,
    "zstd": b"\x28\xb5\x2f\xfd" + b"\0" * 60,
    "a header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{",
    "a terabyte of nothing": packet({"activations.0": {**EMPTY, "shape": [2**38]}}),
    "a terabyte that is empty": packet({"activations.0": {**EMPTY, "shape": [2**38, 0, 2**38]}}),
    "thousands of names": packet({f"activations.{number}": EMPTY for number in range(2500)}),
    "more names than there may be": packet({f"activations.{number}": EMPTY for number in range(4097)}),
}


@pytest.mark.parametrize("body", [*MALFORMED.values(), *BOMBS.values()], ids=[*MALFORMED, *BOMBS])
def test_a_body_that_is_no_message(unchanged: Estate, body: bytes) -> None:
    for path in ("/v1/forward", "/v1/backward", "/v1/step", "/v1/predict"):
        refused(unchanged.ask("alice", "split", "POST", path, body))
    refused(unchanged.ask("alice", "fed", "POST", "/v1/updates", body))


def test_a_body_is_never_unpacked(unchanged: Estate) -> None:
    """A megabyte of zeros is a kilobyte as gzip; no service looks for that."""
    for encoding in ("gzip", "deflate", "br", "zstd"):
        answer = unchanged.ask(
            "alice", "split", "POST", "/v1/predict", BOMBS["gzip"], headers={"content-encoding": encoding}
        )
        refused(answer)
        raw = b"\x1f\x8b\x08" + b"\0" * 60
        answer = unchanged.ask(
            "alice", "coordinator", "POST", "/api/tasks/poll", raw, headers={"content-encoding": encoding}
        )
        refused(answer)


def test_a_body_over_the_limit_is_not_read(unchanged: Estate) -> None:
    for service, path in (("split", "/v1/forward"), ("fed", "/v1/updates"), ("coordinator", "/api/participants")):
        answer = unchanged.ask("alice", service, "POST", path, b"", headers={"content-length": "99999999999"})
        assert (answer.status, answer.code) == (413, "message_too_large")
