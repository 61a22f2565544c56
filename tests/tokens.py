"""Tokens for tests that ask services with HTTP themselves."""

from __future__ import annotations

from collections.abc import Mapping

import urllib3

from microsfl.trust.ticket import Answer
from microsfl.trust.tickets import ticket_for
from microsfl.trust.tokens import Audience


def authorization(coordinator: str, audience: Audience = Audience.COORDINATOR) -> dict[str, str]:
    """The header of whoever started that coordinator, for a service of its federation."""
    found = ticket_for(coordinator, _post)
    return {} if found is None else found.header(audience)


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    return urllib3.request("POST", url, body=body, headers=headers)
