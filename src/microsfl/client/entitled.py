"""Requests that say who sends them: with a token of the right audience, and a new one when it is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import Unauthenticated
from ..trust.ticket import FORM, PATH, Ask, Ticket
from ..trust.tickets import ticket_for
from ..trust.tokens import Audience
from .http import NO_HEADERS, Http, Json, Reply, Way, json_object

# How long a server may refuse a new token: as long as it takes it to hear of a new key, when all others are forgotten.
HEARD_OF_S, PAUSE_S = 10.0, 0.5


def asking(http: Http, coordinator: str) -> Ask:
    """How a ticket asks for tokens."""

    def ask(form: bytes, patient: bool) -> Json:
        way = http if patient else replace(http, retry_s=0.0)
        return json_object(way.request("POST", lambda: [coordinator], PATH, form, FORM))

    return ask


@dataclass(frozen=True)
class Entitled:
    """`way`, with a token of the ticket in each request."""

    way: Way
    ticket: Ticket
    audience: Audience

    def request(
        self,
        method: str,
        servers: Callable[[], Sequence[str]],
        path: str,
        body: bytes | None = None,
        kind: str = "",
        wait_s: float = 0.0,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Reply:
        """See `Http.request`.

        Raises:
            Unauthenticated: when the credential is not right, or the server takes no token of this federation.
        """
        began, pause_s = time.monotonic(), 0.0
        while True:
            token = self.ticket.header(self.audience)  # of a credential that is not right, it ends here
            try:
                return self.way.request(method, servers, path, body, kind, wait_s, {**headers, **token})
            except Unauthenticated:  # it was over by the time that it came, or its key is not in use any more
                patience_s = 0.0 if self.audience is Audience.COORDINATOR else HEARD_OF_S
                if pause_s and time.monotonic() - began > patience_s:
                    raise
                self.ticket.forget(self.audience)
            time.sleep(pause_s)
            pause_s = PAUSE_S


@dataclass(frozen=True)
class Ways:
    """How one process's requests get to each kind of service."""

    coordinator: Way
    body: Way
    client_side: Way

    @classmethod
    def of(cls, http: Http, coordinator: str, credential: str | None = None) -> Ways:
        """With tokens, where there is a credential for the coordinator.

        Raises:
            InvalidSetting: when the credential's file cannot be used.
        """

        ticket = ticket_for(coordinator, asking(http, coordinator), credential)
        if ticket is None:
            return cls(http, http, http)
        http.connections.outbound.vouch(ticket.credential.tls_ca)
        return cls(*(Entitled(http, ticket, one) for one in Audience))
