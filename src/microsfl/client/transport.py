"""Requests that a client makes to any split server and to the fed server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..core.client_side import OptimizerState
from ..errors import ActivationsMissing, ClientNotFound
from ..telemetry.traces import HEADER, Traces
from ..wire.messages import (
    Backward,
    Forward,
    Gradients,
    Message,
    Outputs,
    Predict,
    Step,
    Stored,
    Tensors,
    UnitMessage,
    Update,
)
from ..wire.tensors import decode
from ..wire.timing import HEADER as TIMING
from ..wire.timing import read_timing
from .choice import Choice
from .http import BINARY, NO_HEADERS, Reply, Way, json_object
from .traffic import Traffic

Json = dict[str, Any]
Kind = TypeVar("Kind", bound=Message)


@dataclass
class SplitServers:
    """The split servers as one client sees them: any of them answers any request, and `choice` says which is asked."""

    http: Way
    choice: Choice
    addresses: Callable[[], Sequence[str]]
    traffic: Traffic = field(default_factory=Traffic)
    traces: Traces | None = None

    def forward(self, request: Forward) -> Outputs:
        sticky = request.model_copy(update={"sticky": self.choice.spread != "random"})
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
        return json_object(self.http.request("POST", self._order, path, body, "application/json"))

    def status(self, run: str) -> Json:
        """{"run", "version", "open_round"} of a run's body."""
        return json_object(self.http.request("GET", self._order, f"/v1/runs/{run}"))

    def weights(self, run: str, version: int | None = None) -> tuple[int, bytes]:
        """(version, weights file) of the body; the newest when `version` is None."""
        return _weights(self.http, self._order, run, version, self.traffic)

    def _send(self, path: str, request: Message, kind: type[Kind]) -> Kind:
        if self.traces is None or not isinstance(request, UnitMessage):
            return self._ask(path, request, kind)
        with self.traces.span(request.key, path, asks=True) as parent:
            return self._ask(path, request, kind, NO_HEADERS if parent is None else {HEADER: parent})

    def _ask(self, path: str, request: Message, kind: type[Kind], headers: Mapping[str, str] = NO_HEADERS) -> Kind:
        if self.choice.spread != "two":
            return _message(self.http, self._order, path, request, kind, self.traffic, headers)[0]
        back, loads = request.key if isinstance(request, Backward) else None, self.choice.loads
        order = self.choice.order(self.addresses(), back)
        turns = iter([order])  # asked anew once all of them have been asked
        if order:
            loads.asked(order[0])
        try:
            message, answer = _message(
                self.http, lambda: next(turns, None) or self._order(), path, request, kind, self.traffic, headers
            )
        finally:
            if order:
                loads.over(order[0])
        timing = read_timing(answer.headers.get(TIMING))
        loads.told(answer.server, 0 if timing is None else timing.load)
        if isinstance(request, Forward):
            self.choice.went(request.key, answer.server)
        return message

    def _order(self) -> list[str]:
        return self.choice.order(self.addresses())


@dataclass
class FedServer:
    """The fed server as one client sees it."""

    http: Way
    address: Callable[[], str | None]
    traffic: Traffic = field(default_factory=Traffic)

    def upload(self, update: Update) -> Stored:
        return _message(self.http, self._order, "/v1/updates", update, Stored, self.traffic)[0]

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


def _message(
    http: Way,
    servers: Callable[[], Sequence[str]],
    path: str,
    request: Message,
    kind: type[Kind],
    traffic: Traffic,
    headers: Mapping[str, str] = NO_HEADERS,
) -> tuple[Kind, Reply]:
    began = time.perf_counter()
    body = request.pack()
    encoded = time.perf_counter()
    answer = http.request("POST", servers, path, body, BINARY, 0.0, headers)
    answered = time.perf_counter()
    message = kind.unpack(answer.data)
    decode_s = time.perf_counter() - answered
    asked_s = answered - encoded
    traffic.add(
        len(body),
        len(answer.data),
        answer.headers,
        asked_s,
        encode_s=encoded - began,
        decode_s=decode_s,
        failover=answer.by_another,
    )
    return message, answer


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
