"""Tokens for tests that ask services with HTTP themselves."""

from __future__ import annotations

from typing import Any

import urllib3

from microsfl.trust.ticket import FORM, PATH
from microsfl.trust.tickets import ticket_for
from microsfl.trust.tokens import Audience


def authorization(coordinator: str, audience: Audience = Audience.COORDINATOR) -> dict[str, str]:
    """The header of whoever started that coordinator, for a service of its federation."""

    def ask(form: bytes, _: bool) -> dict[str, Any]:
        answer = urllib3.request("POST", coordinator + PATH, body=form, headers={"content-type": FORM})
        assert answer.status == 200, answer.data
        return dict(answer.json())

    found = ticket_for(coordinator, ask)
    return {} if found is None else found.header(audience)
