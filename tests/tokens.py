"""Tokens for tests that ask services with HTTP themselves."""

from __future__ import annotations

from microsfl.client.entitled import asking
from microsfl.client.http import Http
from microsfl.trust.tickets import ticket_for
from microsfl.trust.tokens import Audience


def authorization(coordinator: str, audience: Audience = Audience.COORDINATOR) -> dict[str, str]:
    """The header of whoever started that coordinator, for a service of its federation."""
    found = ticket_for(coordinator, asking(Http(), coordinator))
    return {} if found is None else found.header(audience)
