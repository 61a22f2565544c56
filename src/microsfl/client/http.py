"""Requests to any of several servers, with retries and failover. Knows nothing of what is sent; imports no torch."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

from ..errors import (
    MicrosflError,
    OperationError,
    StoreCorrupt,
    TooManyRequests,
    Unreachable,
    UnsafeConnection,
    from_wire,
)
from ..wire.retry_after import retry_after_s
from .connections import Answer, Connections
from .tries import Tries

CONNECT_S = 3.0
LONGEST_ANSWER_S = 300.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
AVOID_S = 5.0
# What a server may ask for at most with `Retry-After`, and by how much of it more is waited, at random.
LONGEST_RETRY_AFTER_S = 60.0
BINARY = "application/octet-stream"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

Json = dict[str, Any]


class Reply(Protocol):
    """What came back: a body, and headers that say what is not in it."""

    @property
    def data(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def server(self) -> str:
        """URL of who answered, as it was asked."""

    @property
    def by_another(self) -> bool:
        """Whether another server was asked first."""


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
        headers: Mapping[str, str] = NO_HEADERS,
        /,
    ) -> Reply:
        """See `Http.request`."""


@dataclass
class Http:
    """The connections of a process; says what failed in microsfl's own errors.

    retry_s: how long a request is tried again, on the next server in turn, while servers do not answer or fail. A
    server that failed is asked last for `AVOID_S` seconds, so that a dead one does not cost every request a time-out;
    so is one that closes its connections, as it does before it ends.
    patience_s: how long an answer is waited for before the next server is asked, as a server may hang without dying.
    It is at least four times the slowest answer so far, and doubles with each turn: asking twice changes nothing, and
    whoever computes for long is waited for in the end. A server that says when to come again (`Retry-After`) is not
    asked before, while there is that much time left.
    """

    retry_s: float = 60.0
    patience_s: float = 5.0
    connections: Connections = field(default_factory=Connections)
    tries: Tries = field(default_factory=Tries)
    sleep: Callable[[float], None] = time.sleep
    _failed_at: dict[str, float] = field(default_factory=dict)
    _safe: set[str] = field(default_factory=set)  # servers that have answered
    _slowest_s: float = 0.0

    def request(
        self,
        method: str,
        servers: Callable[[], Sequence[str]],
        path: str,
        body: bytes | None = None,
        kind: str = "",
        wait_s: float = 0.0,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Answer:
        """The first good answer among `servers()` in order, asked anew before each turn.

        Args:
            kind: the body's media type. wait_s: how long the server may wait before it answers (a long poll).
            headers: further ones.

        Raises:
            InputError, StoreCorrupt: whatever the server refuses the request with; trying again would not help.
            UnsafeConnection: when no server can be called safely, and none of them ever was: the settings are wrong.
                One that answered before is tried again: its certificate may be about to be renewed.
            Unreachable: when no server gave an answer within `retry_s`.
        """
        began, first = time.monotonic(), ""
        deadline = began + self.retry_s
        pause, problem = FIRST_PAUSE_S, "no server is known"
        patience_s = min(max(self.patience_s, 4 * self._slowest_s), LONGEST_ANSWER_S)
        while True:
            unsafe: list[UnsafeConnection] = []
            asked, wanted_s = sorted(servers(), key=self._failed_lately), 0.0
            for server in asked:
                first = first or server
                sent = headers if body is None else {"content-type": kind, **headers}
                try:
                    answer = self._once(method, server, path, body, sent, wait_s + patience_s)
                except (_TryAgain, UnsafeConnection) as failed:
                    self.tries.failed(path)
                    problem = str(failed).rstrip(".")
                    if isinstance(failed, UnsafeConnection):
                        unsafe += [failed] * (server not in self._safe)
                    else:
                        wanted_s = max(wanted_s, failed.after_s)
                    if not getattr(failed, "is_well", False):
                        self._failed_at[server] = time.monotonic()
                else:
                    self._safe.add(server)
                    by_another = server != first
                    self.tries.answered(path, time.monotonic() - began, by_another=by_another)
                    return replace(answer, server=server, by_another=by_another)
            if unsafe and len(unsafe) == len(asked):
                raise unsafe[0]
            until = time.monotonic() + max(pause * random.uniform(0.5, 1.0), wanted_s)
            if time.monotonic() + pause > deadline or until > deadline:
                raise Unreachable(f"{method} {path} had no answer in {self.retry_s:g} s; last: {problem}.")
            self.sleep(until - time.monotonic())
            pause, patience_s = min(2 * pause, LONGEST_PAUSE_S), min(2 * patience_s, LONGEST_ANSWER_S)

    def _failed_lately(self, server: str) -> bool:
        return time.monotonic() - self._failed_at.get(server, -AVOID_S) < AVOID_S

    def _once(
        self, method: str, server: str, path: str, body: bytes | None, headers: Mapping[str, str], read_s: float
    ) -> Answer:
        base, _, address = server.partition("#")  # see `addresses.py`
        url, asked_at = base + path + (address and f"#{address}"), time.monotonic()
        try:
            answer = self.connections.request(method, url, body, headers, connect_s=CONNECT_S, read_s=read_s)
        except (OSError, http.client.HTTPException) as error:
            raise _TryAgain(f"{url}: {type(error).__name__}") from None
        if answer.headers.get("connection") == "close":  # it is about to end
            self._failed_at[server] = time.monotonic()
        if answer.status < 300:
            if headers.get("content-type") == BINARY:  # of a long poll it would say nothing
                self._slowest_s = max(self._slowest_s, time.monotonic() - asked_at)
            return answer
        refusal = from_wire(answer.status, _json(answer.data))
        passes = isinstance(refusal, OperationError) or answer.status >= 500
        if passes and not isinstance(refusal, StoreCorrupt):  # every replica has the same store
            after_s = retry_after_s(answer.headers.get("retry-after", ""), LONGEST_RETRY_AFTER_S)
            raise _TryAgain(f"{url}: {refusal}", after_s, is_well=isinstance(refusal, TooManyRequests))
        raise refusal


class _TryAgain(Exception):
    """No answer, but there may be one later. after_s: what the server asked for. is_well: nothing is wrong with it."""

    def __init__(self, problem: str, after_s: float = 0.0, *, is_well: bool = False) -> None:
        super().__init__(problem)
        self.after_s, self.is_well = after_s, is_well


def json_object(answer: Reply) -> Json:
    """The answer's body. Raises MicrosflError when it is not a JSON object."""
    value = _json(answer.data)
    if not isinstance(value, dict):
        raise MicrosflError("The server's answer is not a JSON object.")
    return value


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
