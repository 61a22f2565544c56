"""Split server and fed server over real HTTP: what they refuse, how they say so, and that nothing was changed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import urllib3
import uvicorn

from microsfl.config import FedServerSettings, SplitServerSettings
from microsfl.errors import all_errors
from microsfl.services import fed_server, split_server
from microsfl.services.replica import Replica, create_app
from microsfl.store.objects import ObjectStore, open_store
from microsfl.wire.messages import Backward, Forward, Gradients, Message, Outputs, Predict, Step, Stored, Update
from microsfl.wire.tensors import encode
from tests.world import ALLOWED, spec_of

LIMIT_BYTES = 200_000


@dataclass
class Live:
    """A replica behind a real socket."""

    url: str
    store: ObjectStore
    http: urllib3.PoolManager

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """(status, JSON or bytes) of one request; messages and dicts are packed."""
        if isinstance(body, Message):
            body = body.pack()
        if isinstance(body, dict):
            options["json"], body = body, None
        answer = self.http.request(method, self.url + path, body=body, **options)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status, answer.json() if is_json else answer.data

    def contents(self) -> dict[str, bytes]:
        return {key: self.store.get(key) for key in self.store.list("runs")}


def serve(replica: Replica, store: ObjectStore) -> Iterator[Live]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = uvicorn.Server(uvicorn.Config(create_app(replica, LIMIT_BYTES), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        live = Live(f"http://127.0.0.1:{sock.getsockname()[1]}", store, urllib3.PoolManager(retries=3))
        assert live.ask("GET", "/v1/health")[0] == 200  # the socket listens already: the request waits for the server
        yield live
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def split() -> Iterator[Live]:
    store = open_store("memory://")
    settings = SplitServerSettings(store_url="memory://", allow_models=ALLOWED)
    yield from serve(split_server.create_replica(settings, store), store)


@pytest.fixture(scope="module")
def fed() -> Iterator[Live]:
    store = open_store("memory://")
    yield from serve(
        fed_server.create_replica(FedServerSettings(store_url="memory://", allow_models=ALLOWED), store), store
    )


@pytest.fixture(scope="module", autouse=True)
def run(split: Live, fed: Live) -> None:
    """The run `toy`, with one unit trained in round 0, which stays open."""
    spec = {"spec": spec_of().model_dump(mode="json")}
    assert split.ask("POST", "/v1/runs", spec) == (200, {"run": "toy", "version": 0, "open_round": 0, "sealed": False})
    assert fed.ask("POST", "/v1/runs", spec) == (200, {"run": "toy", "version": 0, "open_round": 0, "sealed": False})
    status, body = split.ask("POST", "/v1/forward", forward())
    assert status == 200
    outputs = Outputs.unpack(body)
    assert outputs.outputs["0"].shape == (8, 4)
    status, body = split.ask("POST", "/v1/backward", backward())
    assert status == 200
    assert Gradients.unpack(body).gradients["0"].shape == (8, 5)


def forward(**changes: Any) -> Forward:
    values = {"run": "toy", "round": 0, "client": "one", "unit": 0, "needs_grad": ("0",)}
    return Forward(**{**values, "activations": {"0": torch.ones(8, 5)}, **changes})


def backward(**changes: Any) -> Backward:
    values = {"run": "toy", "round": 0, "client": "one", "unit": 0, "version": 0, "needs_grad": ("0",)}
    return Backward(**{**values, "gradients": {"0": torch.ones(8, 4)}, **changes})


def step(**changes: Any) -> Step:
    values = {"run": "toy", "round": 0, "client": "one", "unit": 9}
    tensors = {"activations": {"0": torch.ones(8, 5)}, "labels": {"0": torch.zeros(8, dtype=torch.int64)}}
    return Step(**{**values, **tensors, **changes})


def forged(fields: dict[str, Any], tensor: torch.Tensor | None = None) -> bytes:
    base = {"type": "Forward", "run": "toy", "round": 0, "client": "one", "unit": 5}
    return encode({"activations.0": torch.ones(8, 5) if tensor is None else tensor}, {**base, **fields})


ONES = torch.ones(8, 5)
NAN = torch.full((8, 5), float("nan"))
REFUSED: dict[str, tuple[str, Any, int, str]] = {
    "unknown run": ("/v1/forward", forward(run="other"), 404, "run_not_found"),
    "round that has not begun": ("/v1/forward", forward(round=7), 404, "round_not_found"),
    "version that is not there": ("/v1/forward", forward(version=99), 404, "version_not_found"),
    "version newer than any": ("/v1/forward", forward(at_least=99), 404, "version_not_found"),
    "predict: unknown run": ("/v1/predict", Predict(run="x", activations={"0": ONES}), 404, "run_not_found"),
    "wrong shape": ("/v1/forward", forward(activations={"0": torch.ones(8, 6)}), 422, "tensor_mismatch"),
    "wrong dtype": ("/v1/forward", forward(activations={"0": torch.ones(8, 5).double()}), 422, "tensor_mismatch"),
    "no activations": ("/v1/forward", forward(activations={}, needs_grad=()), 422, "tensor_mismatch"),
    "too many activations": (
        "/v1/forward", forward(activations={"0": torch.ones(8, 5), "1": torch.ones(1)}), 422, "tensor_mismatch",
    ),
    "no samples": ("/v1/forward", forward(activations={"0": torch.ones(0, 5)}), 422, "tensor_mismatch"),
    "no batch dimension": ("/v1/forward", forward(activations={"0": torch.ones(5)}), 422, "tensor_mismatch"),
    "gradient wanted for whole numbers": (
        "/v1/forward", forward(activations={"0": ONES, "1": torch.ones(8, dtype=torch.int64)}, needs_grad=("1",)), 422,
        "tensor_mismatch",
    ),
    "step of no samples": (
        "/v1/step", step(activations={"0": torch.ones(0, 5)}, labels={"0": torch.ones(0, dtype=torch.int64)}), 422,
        "tensor_mismatch",
    ),
    "batches that do not divide": ("/v1/forward", forward(batches=3), 422, "tensor_mismatch"),
    "needs_grad of what is not there": ("/v1/forward", forward(needs_grad=("7",)), 422, "tensor_mismatch"),
    "NaN": ("/v1/forward", forward(activations={"0": NAN}), 422, "not_finite"),
    "infinite gradient": ("/v1/backward", backward(gradients={"0": 1 / torch.zeros(8, 4)}), 422, "not_finite"),
    "wrong gradient": (
        "/v1/backward", backward(gradients={"0": torch.ones(8, 9)}, activations={"0": torch.ones(8, 5)}), 422,
        "tensor_mismatch",
    ),
    "backward of a unit that nobody sent": ("/v1/backward", backward(unit=400), 409, "activations_missing"),
    "backward on no version": ("/v1/backward", backward(version=99, unit=400), 409, "activations_missing"),
    "labels that are no classes": ("/v1/step", step(labels={"0": torch.full((8,), 7)}), 422, "tensor_mismatch"),
    "no labels": ("/v1/step", step(labels={}), 422, "tensor_mismatch"),
    "path in the client": ("/v1/forward", forged({"client": "../../etc"}), 422, "invalid_id"),
    "NUL in the run": ("/v1/forward", forged({"run": "a\0b"}), 422, "invalid_id"),
    "run of 10,000 characters": ("/v1/forward", forged({"run": "x" * 10_000}), 422, "invalid_id"),
    "negative unit": ("/v1/forward", forged({"unit": -1}), 400, "malformed_message"),
    "unit that is text": ("/v1/forward", forged({"unit": "0"}), 400, "malformed_message"),
    "unknown field": ("/v1/forward", forged({"admin": True}), 400, "malformed_message"),
    "another message": ("/v1/forward", step(), 400, "malformed_message"),
    "truncated": ("/v1/forward", forward().pack()[:-3], 400, "malformed_message"),
    "nothing": ("/v1/forward", b"", 400, "malformed_message"),
    "oversized": ("/v1/forward", b"x" * (LIMIT_BYTES + 1), 413, "message_too_large"),
    "unknown path": ("/v1/nothing", b"", 404, "no_such_path"),
    "reduce: no JSON": ("/v1/reduce", b"{", 400, "invalid_input"),
    "reduce: a list": ("/v1/reduce", b"[]", 400, "invalid_input"),
    "reduce: unknown run": ("/v1/reduce", {"run": "x", "round": 0}, 404, "run_not_found"),
    "reduce: round far ahead": ("/v1/reduce", {"run": "toy", "round": 3}, 404, "round_not_found"),
    "reduce: negative round": ("/v1/reduce", {"run": "toy", "round": -1}, 400, "invalid_input"),
    "reduce: no parts": ("/v1/reduce", {"run": "toy", "round": 0, "parts": 0}, 400, "invalid_input"),
    "partials: no part": ("/v1/partials", {"run": "toy", "round": 0}, 400, "invalid_input"),
    "partials: one too many": ("/v1/partials", {"run": "toy", "round": 0, "part": 2, "parts": 2}, 400, "invalid_input"),
    "partials: unknown run": ("/v1/partials", {"run": "x", "round": 0, "part": 1, "parts": 2}, 404, "run_not_found"),
    "partials: round far ahead": (
        "/v1/partials", {"run": "toy", "round": 3, "part": 1, "parts": 2}, 404, "round_not_found",
    ),
    "reduce: path": ("/v1/reduce", {"run": "../x", "round": 0}, 422, "invalid_id"),
    "run: no specification": ("/v1/runs", {}, 422, "invalid_setting"),
    "run: unknown setting": ("/v1/runs", {"spec": {"data": {"clinets": 3}}}, 422, "unknown_setting"),
    "run: unresolved": ("/v1/runs", {"spec": {"run": {"name": "fresh"}}}, 422, "invalid_setting"),
    "run: same name, other specification": (
        "/v1/runs", {"spec": spec_of(run={"rounds": 9}).model_dump(mode="json")}, 409, "run_exists",
    ),
    "run: unknown layer": (
        "/v1/runs", {"spec": spec_of(run={"name": "l"}, model={"cut": ["0", "zz"]}).model_dump(mode="json")}, 422,
        "unknown_layer",
    ),
    "run: no body": (
        "/v1/runs", {"spec": spec_of(run={"name": "l"}, model={"cut": ["1", "1"]}).model_dump(mode="json")}, 422,
        "invalid_cut",
    ),
    "run: model that is not allowed": (
        "/v1/runs", {"spec": spec_of(run={"name": "l"}, model={"name": "os:system"}).model_dump(mode="json")}, 403,
        "model_not_allowed",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_split_server_refuses_and_keeps_what_it_had(split: Live, path: str, body: Any, status: int, code: str) -> None:
    before = split.contents()
    found_status, found = split.ask("POST", path, body)
    assert (found_status, found["error"]["code"]) == (status, code)
    assert found.keys() == {"error"}
    assert found["error"].keys() == {"code", "message"}
    assert "Traceback" not in found["error"]["message"]
    after = {key: value for key, value in split.contents().items() if "/activations/" not in key}
    assert after == {key: value for key, value in before.items() if "/activations/" not in key}


def test_a_wrong_method_is_refused_in_the_same_shape(split: Live) -> None:
    assert split.ask("GET", "/v1/forward")[1]["error"]["code"] == "method_not_allowed"


def test_a_path_in_a_url_is_refused(split: Live) -> None:
    for run in ("%2e%2e%2f%2e%2e", "..%2f..", "a%00b", "x" * 5000):
        status, answer = split.ask("GET", f"/v1/runs/{run}/versions/newest/weights")
        assert (status, answer["error"]["code"]) in {(422, "invalid_id"), (404, "no_such_path")}
    for version in ("-1", "1e3", "9" * 30, "٣", "²"):
        assert split.ask("GET", f"/v1/runs/toy/versions/{version}/weights")[0] in {400, 404}


def test_an_activation_that_the_front_does_not_make_is_refused(split: Live) -> None:
    """int() does not take every character that isdigit() does."""
    status, answer = split.ask("POST", "/v1/forward", forward(activations={"²": ONES}, needs_grad=("²",)))
    assert (status, answer["error"]["code"]) == (422, "tensor_mismatch")


def test_a_body_that_only_claims_to_be_large_is_refused_at_once(split: Live) -> None:
    host, port = split.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"POST /v1/forward HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert b" 413 " in raw.recv(4096).split(b"\r\n")[0]


def test_a_replayed_backward_answers_the_same_and_adds_nothing(split: Live) -> None:
    status, first = split.ask("POST", "/v1/backward", backward(activations={"0": torch.ones(8, 5)}))
    assert status == 200
    before = lasting(split)
    status, second = split.ask("POST", "/v1/backward", backward(activations={"0": torch.ones(8, 5)}))
    assert (status, second) == (200, first)
    assert lasting(split) == before


def lasting(split: Live) -> dict[str, bytes]:
    """What is in the store but for hand-over copies, which come and go in the background."""
    return {key: content for key, content in split.contents().items() if "/activations/" not in key}


def test_weights_are_served_by_version_and_as_the_newest(split: Live) -> None:
    status, newest = split.ask("GET", "/v1/runs/toy/versions/newest/weights")
    assert status == 200
    assert split.ask("GET", "/v1/runs/toy/versions/0/weights") == (200, newest)
    assert split.ask("GET", "/v1/runs/toy/versions/5/weights")[1]["error"]["code"] == "version_not_found"
    assert split.ask("GET", "/v1/runs/toy") == (200, {"run": "toy", "version": 0, "open_round": 0, "sealed": False})


def update(**changes: Any) -> Update:
    weights = {
        "front.0.weight": torch.ones(5, 6), "front.0.bias": torch.ones(5),
        "tail.4.weight": torch.ones(3, 4), "tail.4.bias": torch.ones(3),
    }  # fmt: skip
    return Update(**{"run": "toy", "round": 0, "client": "one", "samples": 8, "weights": weights, **changes})


FED_REFUSED: dict[str, tuple[str, Any, int, str]] = {
    "unknown run": ("/v1/updates", update(run="other"), 404, "run_not_found"),
    "round that has not begun": ("/v1/updates", update(round=4), 404, "round_not_found"),
    "missing tensors": ("/v1/updates", update(weights={"tail.4.bias": torch.ones(3)}), 422, "tensor_mismatch"),
    "wrong shape": (
        "/v1/updates", update(weights={**update().weights, "tail.4.bias": torch.ones(4)}), 422, "tensor_mismatch",
    ),
    "NaN": ("/v1/updates", update(weights={**update().weights, "tail.4.bias": NAN[0, :3]}), 422, "not_finite"),
    "client without an update": (
        "/v1/aggregate", {"run": "toy", "round": 0, "clients": ["nobody"]}, 404, "client_not_found",
    ),
    "clients that are no list": ("/v1/aggregate", {"run": "toy", "round": 0, "clients": "one"}, 400, "invalid_input"),
    "path in a client": ("/v1/aggregate", {"run": "toy", "round": 0, "clients": ["../x"]}, 422, "invalid_id"),
    "round ahead": ("/v1/aggregate", {"run": "toy", "round": 2, "clients": ["one"]}, 404, "round_not_found"),
    "last that is no text": (
        "/v1/aggregate", {"run": "toy", "round": 0, "clients": [], "last": ["one"]}, 400, "invalid_input",
    ),
    "path in the last": (
        "/v1/aggregate", {"run": "toy", "round": 0, "clients": [], "last": "../x"}, 422, "invalid_id",
    ),
    "last without an update": (
        "/v1/aggregate", {"run": "toy", "round": 0, "clients": [], "last": "nobody"}, 404, "client_not_found",
    ),
    "last that is none of the clients": (
        "/v1/aggregate", {"run": "toy", "round": 0, "clients": ["one"], "last": "two"}, 400, "invalid_input",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "code"), FED_REFUSED.values(), ids=FED_REFUSED.keys())
def test_fed_server_refuses_and_keeps_what_it_had(fed: Live, path: str, body: Any, status: int, code: str) -> None:
    before = fed.contents()
    found_status, found = fed.ask("POST", path, body)
    assert (found_status, found["error"]["code"]) == (status, code)
    assert fed.contents() == before


def test_updates_count_once_and_are_averaged(fed: Live) -> None:
    other = {name: 3 * tensor for name, tensor in update().weights.items()}
    for message in (update(), update(client="two", weights=other), update(weights=other)):  # the last is a replay
        status, body = fed.ask("POST", "/v1/updates", message)
        assert (status, Stored.unpack(body).round) == (200, 0)
    path = "/v1/runs/toy/rounds/0/updates"
    for place, status, code in (
        (f"{path}/two/weights", 403, "forbidden"),  # nobody begins with it, where updates are averaged
        (f"{path}/nobody/weights", 403, "forbidden"),
        ("/v1/runs/toy/rounds/1/updates/two", 404, "client_not_found"),
        ("/v1/runs/toy/rounds/x/updates/two/weights", 400, "invalid_input"),
        ("/v1/runs/other/rounds/0/updates/two/weights", 404, "run_not_found"),
        (f"{path}/a%00b/weights", 422, "invalid_id"),
    ):
        found_status, found = fed.ask("GET", place)
        assert (found_status, found["error"]["code"]) == (status, code)
    call = {"run": "toy", "round": 0, "clients": ["two", "one"], "last": None}
    status, answer = fed.ask("POST", "/v1/aggregate", call)
    assert (status, answer["version"], answer["clients"]) == (200, 1, 2)
    assert fed.ask("POST", "/v1/aggregate", call) == (200, answer)
    status, weights = fed.ask("GET", "/v1/runs/toy/versions/1/weights")
    assert (status, weights) == (200, encode({name: 2 * tensor for name, tensor in update().weights.items()}))
    assert fed.ask("POST", "/v1/updates", update(client="late"))[1]["error"]["code"] == "round_closed"


def test_every_error_has_its_own_code_and_a_public_sentence() -> None:
    errors = all_errors()
    assert len({error.code for error in errors}) == len(errors)
    assert all(error.summary.endswith(".") and 400 <= error.status < 600 for error in errors)
