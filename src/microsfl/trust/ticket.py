"""The access tokens of a process: fetched from the coordinator with its credential, and again before they are over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from ..errors import MicrosflError, OperationError, Unauthenticated, UnsafeConnection
from .credential import Credential
from .tokens import Audience

RENEW_AT = 0.5  # of a token's life
AGAIN_S = 5.0  # before a renewal that failed is tried again, while the token is still right
PATH = "/api/tokens"
FORM = "application/x-www-form-urlencoded"

# (form, whether to be patient with a coordinator that does not answer) -> its JSON answer to POST /api/tokens.
# Raises MicrosflError: what the coordinator refuses, or Unreachable.
Ask = Callable[[bytes, bool], Mapping[str, Any]]


@dataclass
class Held:
    token: str
    renew_at: float
    ends_at: float


class Ticket:
    """For any number of threads.

    read: gives the credential as it is now, for one that is refused: it may have a new secret since it was read.
    """

    def __init__(
        self,
        credential: Credential,
        ask: Ask,
        clock: Callable[[], float] = time.monotonic,
        read: Callable[[], Credential | None] = lambda: None,
    ) -> None:
        self.credential = credential
        self._ask, self._clock, self._read = ask, clock, read
        self._held: dict[Audience, Held] = {}
        self._lock = threading.Lock()

    def header(self, audience: Audience) -> dict[str, str]:
        """What to send along to a service.

        Raises:
            Unauthenticated: when the credential is not right, or was revoked.
            Unreachable, UnsafeConnection: when there is no token, and the coordinator does not answer, or not safely.
        """
        with self._lock:
            held, now = self._held.get(audience), self._clock()
            if held is None or now >= held.ends_at:
                held = self._held[audience] = self._renewed(audience, patient=True)
            elif now >= held.renew_at:
                try:
                    held = self._held[audience] = self._renewed(audience, patient=False)
                except (OperationError, UnsafeConnection):
                    held.renew_at = now + AGAIN_S
            return {"authorization": f"Bearer {held.token}"}

    def forget(self, audience: Audience) -> None:
        """The token was refused: the next one is a new one."""
        with self._lock:
            self._held.pop(audience, None)

    def _renewed(self, audience: Audience, *, patient: bool) -> Held:
        try:
            return self._fetch(audience, patient=patient)
        except Unauthenticated:
            now = self._read()
            if now is None or now == self.credential:
                raise
            self.credential = now
            return self._fetch(audience, patient=patient)

    def _fetch(self, audience: Audience, *, patient: bool) -> Held:
        one, asked_at = self.credential, self._clock()
        form = {
            "grant_type": "client_credentials", "client_id": one.id, "client_secret": one.secret, "audience": audience,
        }  # fmt: skip
        said = self._ask(urlencode(form).encode(), patient)
        try:
            life_s = float(said["expires_in"])
            return Held(str(said["access_token"]), asked_at + RENEW_AT * life_s, asked_at + life_s)
        except (ValueError, KeyError, TypeError):
            raise MicrosflError(f"{one.coordinator} answered without a token.") from None
