"""The access tokens of a process: fetched from the coordinator with its credential, and again before they are over."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

from ..errors import MicrosflError, OperationError, Unauthenticated, Unreachable, from_wire
from .credential import Credential
from .tokens import Audience

RENEW_AT = 0.5  # of a token's life
PATH = "/api/tokens"
FORM = "application/x-www-form-urlencoded"


class Answer(Protocol):
    """What came back from the coordinator."""

    @property
    def status(self) -> int: ...

    @property
    def data(self) -> bytes: ...


# (url, body, headers) -> answer of one POST. Raises OSError or HTTPException of whatever library when there is none.
Post = Callable[[str, bytes, Mapping[str, str]], Answer]


@dataclass
class Held:
    token: str
    renew_at: float
    ends_at: float


class Ticket:
    """For any number of threads.

    post: how the coordinator is asked, once; what it raises is told as `Unreachable`.
    read: gives the credential as it is now, for one that is refused: it may have a new secret since it was read.
    """

    def __init__(
        self,
        credential: Credential,
        post: Post,
        failures: tuple[type[Exception], ...] = (OSError,),
        clock: Callable[[], float] = time.monotonic,
        read: Callable[[], Credential | None] = lambda: None,
    ) -> None:
        self.credential = credential
        self._read = read
        self._post, self._failures, self._clock = post, failures, clock
        self._held: dict[Audience, Held] = {}
        self._lock = threading.Lock()

    def header(self, audience: Audience) -> dict[str, str]:
        """What to send along to a service.

        Raises:
            Unauthenticated: when the credential is not right, or was revoked.
            Unreachable: when there is no token, and the coordinator does not answer.
        """
        with self._lock:
            held, now = self._held.get(audience), self._clock()
            if held is None or now >= held.renew_at:
                try:
                    held = self._held[audience] = self._renewed(audience)
                except OperationError:
                    if held is None or now >= held.ends_at:
                        raise
            return {"authorization": f"Bearer {held.token}"}

    def forget(self, audience: Audience) -> None:
        """The token was refused: the next one is a new one."""
        with self._lock:
            self._held.pop(audience, None)

    def _renewed(self, audience: Audience) -> Held:
        try:
            return self._fetch(audience)
        except Unauthenticated:
            now = self._read()
            if now is None or now == self.credential:
                raise
            self.credential = now
            return self._fetch(audience)

    def _fetch(self, audience: Audience) -> Held:
        one, asked_at = self.credential, self._clock()
        form = {
            "grant_type": "client_credentials", "client_id": one.id, "client_secret": one.secret, "audience": audience,
        }  # fmt: skip
        try:
            answer = self._post(one.coordinator + PATH, urlencode(form).encode(), {"content-type": FORM})
        except self._failures as error:
            raise Unreachable(f"{one.coordinator} gives no token: {type(error).__name__}.") from None
        try:
            said = json.loads(answer.data)
            if answer.status >= 300:
                raise from_wire(answer.status, said)
            life_s = float(said["expires_in"])
            return Held(str(said["access_token"]), asked_at + RENEW_AT * life_s, asked_at + life_s)
        except (ValueError, KeyError, TypeError):
            raise MicrosflError(f"{one.coordinator} answered {answer.status} where it should give a token.") from None
