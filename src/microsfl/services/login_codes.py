"""Codes that log a browser in, once: what is in the link that a terminal shows."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import Unauthenticated
from ..trust.secret import digest

LIFE_S = 600.0
CODE_BYTES = 16  # as random as it has to be, and an address that fits in a line
KEPT = 100  # of those that nobody has used; the oldest go first


@dataclass(frozen=True)
class Given:
    identity: str
    made_at: float


class LoginCodes:
    """In memory alone: none of them outlives the process. For the event loop's thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._given: dict[str, Given] = {}

    def new(self, identity: str) -> tuple[str, float]:
        """A code for a session of that identity, and when it ends."""
        now = self._clock()
        code = secrets.token_urlsafe(CODE_BYTES)
        living = [(hashed, one) for hashed, one in self._given.items() if now <= one.made_at + LIFE_S]
        self._given = dict([*living, (digest(code), Given(identity, now))][-KEPT:])
        return code, now + LIFE_S

    def use(self, code: str) -> Given:
        """Whose it is; it is no code any more.

        Raises:
            Unauthenticated: when it is none, was used, or is over.
        """
        found = self._given.pop(digest(code), None)
        if found is None or self._clock() > found.made_at + LIFE_S:
            raise Unauthenticated("This link was used before, or is over: ask for a new one, or log in.")
        return found
