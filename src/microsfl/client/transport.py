"""Requests that a client makes: to any split server, the fed server and the coordinator, with retries and failover."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from ..core.client_side import OptimizerState
from ..errors import (
    ActivationsMissing,
    ClientNotFound,
    MicrosflError,
    OperationError,
    StoreCorrupt,
    Unreachable,
    from_wire,
)
from ..spec import RunSpec
from ..wire.messages import Backward, Forward, Gradients, Message, Outputs, Predict, Step, Stored, Tensors, Update
from ..wire.tensors import decode
from .connections import Answer, Connections
from .traffic import Traffic

CONNECT_S = 3.0
LONGEST_ANSWER_S = 300.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
AVOID_S = 5.0
BINARY = "application/octet-stream"

Json = dict[str, Any]
Kind = TypeVar("Kind", bound=Message)


class Reply(Protocol):
    """What came back: a body, and headers that say what is not in it."""

    @property
    def data(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


class Way(Protocol):
    """How a request gets to a server."""

    def request(
        self,
        method: str,
        servers: Callable[[], Sequence[str]],
        path: str,
        body: bytes | None = None,
        kind: str = "",
        wait_s: float = 0.0,
        /,
    ) -> Reply:
        """See `Http.request`."""


@dataclass
class Http:
    """The connections of a process; says what failed in microsfl's own errors.

    retry_s: how long a request is tried again, on the next server in turn, while servers do not answer or fail. A
    server that failed is asked last for `AVOID_S` seconds, so that a dead one does not cost every request a time-out.
    patience_s: how long an answer is waited for before the next server is asked, as a server may hang without dying.
    It is at least four times the slowest answer so far, and doubles with each turn: asking twice changes nothing, and
    whoever computes for long is waited for in the end.
    """

    retry_s: float = 60.0
    patience_s: float = 5.0
    connections: Connections = field(default_factory=Connections)
    _failed_at: dict[str, float] = field(default_factory=dict)
    _slowest_s: float = 0.0

    def request(
        self,
        method: str,
        servers: Callable[[], Sequence[str]],
        path: str,
        body: bytes | None = None,
        kind: str = "",
        wait_s: float = 0.0,
    ) -> Answer:
        """The first good answer among `servers()` in order, asked anew before each turn.

        Args:
            kind: the body's media type. wait_s: how long the server may wait before it answers (a long poll).

        Raises:
            InputError, StoreCorrupt: whatever the server refuses the request with; trying again would not help.
            Unreachable: when no server gave an answer within `retry_s`.
        """
        deadline = time.monotonic() + self.retry_s
        pause, problem = FIRST_PAUSE_S, "no server is known"
        patience_s = min(max(self.patience_s, 4 * self._slowest_s), LONGEST_ANSWER_S)
        while True:
            for server in sorted(servers(), key=self._failed_lately):
                answer, problem = self._once(method, server + path, body, kind, wait_s + patience_s)
                if answer is not None:
                    return answer
                self._failed_at[server] = time.monotonic()
            if time.monotonic() + pause > deadline:
                raise Unreachable(f"{method} {path} had no answer in {self.retry_s:g} s; last: {problem}.")
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause, patience_s = min(2 * pause, LONGEST_PAUSE_S), min(2 * patience_s, LONGEST_ANSWER_S)

    def _failed_lately(self, server: str) -> bool:
        return time.monotonic() - self._failed_at.get(server, -AVOID_S) < AVOID_S

    def _once(self, method: str, url: str, body: bytes | None, kind: str, read_s: float) -> tuple[Answer | None, str]:
        headers = {"content-type": kind} if body is not None else {}
        asked_at = time.monotonic()
        try:
            answer = self.connections.request(method, url, body, headers, connect_s=CONNECT_S, read_s=read_s)
        except (OSError, http.client.HTTPException) as error:
            return None, f"{url}: {type(error).__name__}"
        if answer.status < 300:
            if kind == BINARY:  # of a long poll it would say nothing
                self._slowest_s = max(self._slowest_s, time.monotonic() - asked_at)
            return answer, ""
        refusal = from_wire(answer.status, _json(answer.data))
        passes = isinstance(refusal, OperationError) or answer.status >= 500
        if passes and not isinstance(refusal, StoreCorrupt):  # every replica has the same store
            return None, f"{url}: {refusal}"
        raise refusal


@dataclass
class SplitServers:
    """The split servers as one client sees them: any of them answers any request.

    sticky: the client keeps to replica number `favourite` (modulo their number, in sorted order), where its graphs are
    cached, and takes the next when that one fails. random: each request goes to a replica drawn at random.
    """

    http: Way
    favourite: int
    addresses: Callable[[], Sequence[str]]
    spread: Literal["sticky", "random"] = "sticky"
    traffic: Traffic = field(default_factory=Traffic)

    def forward(self, request: Forward) -> Outputs:
        sticky = request.model_copy(update={"sticky": self.spread == "sticky"})
        return self._send("/v1/forward", sticky, Outputs)

    def backward(self, request: Backward, activations: Tensors) -> Gradients:
        """`activations` are sent again only when no replica and no store has them any more."""
        try:
            return self._send("/v1/backward", request, Gradients)
        except ActivationsMissing:
            return self._send("/v1/backward", request.model_copy(update={"activations": activations}), Gradients)

    def step(self, request: Step) -> Gradients:
        return self._send("/v1/step", request, Gradients)

    def predict(self, request: Predict) -> Outputs:
        return self._send("/v1/predict", request, Outputs)

    def call(self, path: str, values: Json) -> Json:
        """A JSON call, as /v1/reduce."""
        body = json.dumps(values).encode()
        return _object(self.http.request("POST", self._order, path, body, "application/json"))

    def status(self, run: str) -> Json:
        """{"run", "version", "open_round"} of a run's body."""
        return _object(self.http.request("GET", self._order, f"/v1/runs/{run}"))

    def weights(self, run: str, version: int | None = None) -> tuple[int, bytes]:
        """(version, weights file) of the body; the newest when `version` is None."""
        return _weights(self.http, self._order, run, version, self.traffic)

    def _send(self, path: str, request: Message, kind: type[Kind]) -> Kind:
        return _message(self.http, self._order, path, request, kind, self.traffic)

    def _order(self) -> list[str]:
        known = sorted(self.addresses())
        if not known:
            return []
        if self.spread == "random":
            return random.sample(known, len(known))
        first = self.favourite % len(known)
        return known[first:] + known[:first]


@dataclass
class FedServer:
    """The fed server as one client sees it."""

    http: Way
    address: Callable[[], str | None]
    traffic: Traffic = field(default_factory=Traffic)

    def upload(self, update: Update) -> Stored:
        return _message(self.http, self._order, "/v1/updates", update, Stored, self.traffic)

    def weights(self, run: str, version: int | None = None) -> tuple[int, bytes]:
        """(version, weights file) of the client-side model; the newest when `version` is None."""
        return _weights(self.http, self._order, run, version, self.traffic)

    def optimizer(self, run: str, round_: int, client: str) -> OptimizerState:
        """State of the client's optimizers after the last round, up to this one, that it had a part in."""
        try:
            answer = _get(self.http, self._order, f"/v1/runs/{run}/rounds/{round_}/updates/{client}", self.traffic)
        except ClientNotFound:
            return {}, {}
        update = Update.unpack(answer.data, hashed=True)
        return update.optimizer, update.scalars

    def handed_on(self, run: str, round_: int, client: str) -> Tensors:
        """The client-side weights that a client uploaded in exactly this round, named as in `tensors`."""
        path = f"/v1/runs/{run}/rounds/{round_}/updates/{client}/weights"
        return decode(_get(self.http, self._order, path, self.traffic).data).tensors

    def tensors(self, run: str, version: int) -> Tensors:
        """The client-side weights of a version, named front.<…>, tail.<…> and aux.<…>."""
        return decode(self.weights(run, version)[1]).tensors

    def _order(self) -> list[str]:
        address = self.address()
        return [] if address is None else [address]


@dataclass
class Coordinator:
    """The coordinator's JSON API, and the servers that it knew when it was last asked."""

    http: Way
    url: str
    split_servers: list[str] = field(default_factory=list)
    fed_server: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def register(self, client: str, info: Json) -> None:
        """Register, or say that the client is still there; learns which servers there are."""
        me = {"id": client, "role": "client", "address": None, "info": info}
        self.learn(self._ask("POST", "/api/participants", me))

    def poll(self, clients: Sequence[str], wait_s: float, in_hand: Sequence[Json] = ()) -> list[Json]:
        """Open tasks of these clients; waits for one up to `wait_s` seconds.

        in_hand: tasks, as they came, that some of them are at: these get others once they have reported.
        """
        known = [{name: task[name] for name in ("run", "client", "kind", "round")} for task in in_hand]
        question = {"clients": list(clients), "wait_s": wait_s, "in_hand": known}
        answer = self._ask("POST", "/api/tasks/poll", question, wait_s)
        self.learn(answer)
        return list(answer["tasks"])

    def report(self, run: str, report: Json) -> bool:
        """Hand in a task's result; False when it came too late or twice."""
        return bool(self._ask("POST", f"/api/runs/{run}/reports", report)["accepted"])

    def run(self, name: str) -> Json:
        return self._ask("GET", f"/api/runs/{name}")

    def spec(self, name: str) -> RunSpec:
        return RunSpec.parse(self.run(name)["spec"])

    def participants(self) -> list[Json]:
        """All participants; also learns the servers' addresses."""
        found = list(self._ask("GET", "/api/participants")["participants"])
        alive = [one for one in found if one.get("alive", True)] or found
        fed = [one["address"] for one in alive if one["role"] == "fed-server"]
        split = [one["address"] for one in alive if one["role"] == "split-server"]
        self.learn({"split_servers": split, "fed_server": fed[0] if fed else None})
        return found

    def learn(self, servers: Json) -> None:
        with self.lock:
            self.split_servers = list(servers["split_servers"])
            self.fed_server = servers["fed_server"]

    def _ask(self, method: str, path: str, values: Json | None = None, wait_s: float = 0.0) -> Json:
        body = None if values is None else json.dumps(values, allow_nan=False).encode()
        return _object(self.http.request(method, lambda: [self.url], path, body, "application/json", wait_s))


def _message(
    http: Way, servers: Callable[[], Sequence[str]], path: str, request: Message, kind: type[Kind], traffic: Traffic
) -> Kind:
    began = time.perf_counter()
    body = request.pack()
    encoded = time.perf_counter()
    answer = http.request("POST", servers, path, body, BINARY)
    answered = time.perf_counter()
    message = kind.unpack(answer.data)
    decode_s = time.perf_counter() - answered
    asked_s = answered - encoded
    traffic.add(len(body), len(answer.data), answer.headers, asked_s, encode_s=encoded - began, decode_s=decode_s)
    return message


def _get(http: Way, servers: Callable[[], Sequence[str]], path: str, traffic: Traffic) -> Reply:
    began = time.perf_counter()
    answer = http.request("GET", servers, path)
    traffic.add(0, len(answer.data), answer.headers, time.perf_counter() - began)
    return answer


def _weights(
    http: Way, servers: Callable[[], Sequence[str]], run: str, version: int | None, traffic: Traffic
) -> tuple[int, bytes]:
    number = "newest" if version is None else str(version)
    answer = _get(http, servers, f"/v1/runs/{run}/versions/{number}/weights", traffic)
    return int(answer.headers["x-microsfl-version"]), answer.data


def _object(answer: Reply) -> Json:
    value = _json(answer.data)
    if not isinstance(value, dict):
        raise MicrosflError("The server's answer is not a JSON object.")
    return value


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
