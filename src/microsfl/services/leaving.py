"""How a replica goes: it says so, answers what still comes, and ends when nobody asks it any more.

Whoever is asked to end has a few seconds. Others learn of it in three ways, whichever reaches them first: the
coordinator names it no more, `/v1/ready` says no, and each answer closes its connection, upon which a client asks
another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

QUIET_S = 1.0  # nobody has asked for so long: whoever is going to has heard that it leaves
LOOK_S = 0.05
# What is asked of any server, also of one that leaves, and by no client.
LOOKING = ("/v1/health", "/v1/ready")


class Leaving:
    """Whether a replica is about to end, and what it still has to answer. Of one event loop.

    tell: is called once it begins.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.begun = False
        self.tell: Callable[[], None] = lambda: None
        self._clock = clock
        self._open, self._asked_at = 0, clock()

    def asked(self) -> None:
        self._open += 1

    def answered(self) -> None:
        self._open -= 1
        self._asked_at = self._clock()

    @property
    def is_quiet(self) -> bool:
        """Nothing is under way, and for a while nobody has asked."""
        return not self._open and self._clock() - self._asked_at >= QUIET_S

    async def drain(self, within_s: float, hurried: Callable[[], bool]) -> None:
        """Leave: until it is quiet, the time is over, or somebody is in a hurry."""
        self.begun, self._asked_at = True, self._clock()
        self.tell()
        deadline = self._clock() + within_s
        while not (self.is_quiet or hurried() or self._clock() >= deadline):
            await asyncio.sleep(LOOK_S)


class Farewell:
    """Middleware that counts what is asked of a replica, and closes each connection with its answer once it leaves."""

    def __init__(self, app: ASGIApp, leaving: Leaving) -> None:
        self._app, self._leaving = app, leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in LOOKING or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._leaving.begun:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        self._leaving.asked()
        try:
            await self._app(scope, receive, closing)
        finally:
            self._leaving.answered()
