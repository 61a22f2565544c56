"""Bounds of what one caller has under way and sends a second, and of all callers together.

Who is over a bound gets 429, or 503 when it is the server that is full, with a `Retry-After`. Who comes again before
that is over waits for the answer, so that it cannot keep the server busy with refusing, and has less of the compute
thread for a while.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from cachetools import LRUCache
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ..config import ServerSettings
from ..errors import MicrosflError, Overloaded, TooManyRequests
from ..process import event
from ..trust import scopes
from ..trust.tokens import ANY, Caller
from .addresses import ADDRESS, network_of
from .http import on_microsfl_error
from .turns import Line

CALLERS_KEPT = 4096
LOGGED_EVERY_S = 10.0
# Refusals for want of a valid token that an address gets in a second at once; those after it wait.
STRANGE_PER_S = 20.0
# Who comes again before it was told to has so much less of the compute thread, for so long.
HASTY_SHARE = 0.25
HASTY_S = 10.0


class Owned(Protocol):
    """A connection that wants to know whose it is."""

    def belongs_to(self, owner: str) -> None: ...

    @property
    def is_closed(self) -> bool: ...


@dataclass(frozen=True)
class Bounds:
    """Requests under way in all and of one caller, and requests of one caller a second (0: no bound)."""

    requests: int = 1024
    each: int = 256
    per_s: float = 5000.0

    @classmethod
    def of(cls, settings: ServerSettings) -> Bounds:
        return cls(settings.max_requests, settings.max_requests_per_caller, settings.max_requests_per_s)


class Bucket:
    """A token bucket that holds one second's worth."""

    __slots__ = ("at", "level", "per_s")

    def __init__(self, per_s: float, now: float) -> None:
        self.per_s, self.at = per_s, now
        self.level = max(1.0, per_s)

    def take(self, now: float) -> bool:
        """Whether there was one to take."""
        self.level = min(max(1.0, self.per_s), self.level + (now - self.at) * self.per_s)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Known:
    """One caller: requests under way, when it may come again, refusals that the log has not been told of."""

    __slots__ = ("back_at", "bucket", "hasty_until", "logged_at", "open", "refused")

    def __init__(self, per_s: float, now: float) -> None:
        self.open = 0
        self.bucket = Bucket(per_s, now) if per_s else None
        self.back_at, self.hasty_until, self.logged_at, self.refused = 0.0, 0.0, -math.inf, 0

    def refuse(self, name: str, now: float, error: MicrosflError) -> float:
        """Note a refusal; the seconds until it is to be said."""
        hold_s = max(0.0, self.back_at - now)
        if hold_s:
            self.hasty_until = now + HASTY_S
        self.back_at = now + hold_s + error.retry_after_s
        self.refused += 1
        if now - self.logged_at >= LOGGED_EVERY_S:
            event("caller held back", logging.WARNING, caller=name, refused=self.refused, reason=str(error))
            self.logged_at, self.refused = now, 0
        return min(hold_s, error.retry_after_s)


class Callers:
    """What every caller has under way. Of one event loop."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.open = 0
        self._known: LRUCache[str, Known] = LRUCache(CALLERS_KEPT)
        self._strangers: LRUCache[str, Known] = LRUCache(CALLERS_KEPT)

    def of(self, name: str, now: float) -> Known:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Known(self.bounds.per_s, now)
        return known

    def refusal(self, known: Known, now: float) -> MicrosflError | None:
        """Why a request is not let in; None: it is."""
        if known.open >= self.bounds.each:
            return TooManyRequests(f"{known.open} requests of this caller are under way already.")
        if self.open >= self.bounds.requests and known.open:
            return Overloaded(f"{self.open} requests are under way, as many as this server takes.")
        if known.bucket is not None and not known.bucket.take(now):
            return TooManyRequests(f"This caller sends more than {self.bounds.per_s:g} requests a second.")
        return None

    async def hold_back(self, scope: Scope) -> None:
        """Let an address wait that is refused again and again for want of a valid token."""
        name, now = address_of(scope), monotonic()
        known = self._strangers.get(name)
        if known is None:
            known = self._strangers[name] = Known(STRANGE_PER_S, now)
        if known.bucket is not None and not known.bucket.take(now):
            known.refuse(name, now, TooManyRequests("This address sends requests without a valid token."))
            await asyncio.sleep(TooManyRequests.retry_after_s)


class Admission:
    """Middleware, inside of the gate, that refuses requests over the bounds. The coordinator's own always pass."""

    def __init__(self, app: ASGIApp, callers: Callers) -> None:
        self._app, self._callers = app, callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line = None if scope["type"] != "http" else line_of(scope)
        if line is None or math.isinf(line.share):
            await self._app(scope, receive, send)
            return
        connection: Owned | None = scope["state"].get("connection") if "state" in scope else None
        if connection is not None and not line.name.startswith(ADDRESS):
            connection.belongs_to(line.name)
        callers, now = self._callers, monotonic()
        known = callers.of(line.name, now)
        error = callers.refusal(known, now)
        if error is not None:
            hold_s = known.refuse(line.name, now, error)
            if hold_s:
                await asyncio.sleep(hold_s)
            answer = await on_microsfl_error(Request(scope), error)
            await answer(scope, receive, send)
            return
        if now < known.hasty_until:
            line = Line(line.name, line.share * HASTY_SHARE)
        scope.setdefault("state", {})["line"] = line
        known.open += 1
        callers.open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            known.open -= 1
            callers.open -= 1


def line_of(scope: Scope) -> Line:
    """Who asks: an identity, with a share for each participant that it may be; or an address."""
    state = scope.get("state", {})
    line: Line | None = state.get("line")
    if line is not None:  # from `Admission`
        return line
    caller: Caller | None = state.get("caller")
    if caller is None:
        return Line(address_of(scope))
    if caller.may(scopes.Scope.DIRECT):
        return Line(caller.id, math.inf)
    return Line(caller.id, 1.0 if ANY in caller.acts_as else max(1.0, float(len(caller.acts_as))))


def check_there(scope: Scope) -> None:
    """Raises ClientDisconnect when whoever asks has hung up: nobody is left to compute for."""
    connection: Owned | None = scope.get("state", {}).get("connection")
    if connection is not None and connection.is_closed:
        raise ClientDisconnect


def address_of(scope: Scope) -> str:
    peer = scope.get("client")
    return ADDRESS + (network_of(peer[0]) if peer else "-")
