"""Tokens of a process: kept, renewed in time, and held on to while the coordinator is away."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import pytest

from microsfl.errors import MicrosflError, Unauthenticated, Unreachable
from microsfl.trust.credential import Credential
from microsfl.trust.ticket import AGAIN_S, Ticket
from microsfl.trust.tokens import Audience

LIFE_S = 100.0


class Coordinator:
    """Gives numbered tokens, or what it is told to raise; it has a clock that stands until it is moved."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.now = 1000.0
        self.raises: MicrosflError | None = None

    def __call__(self, form: bytes, patient: bool) -> dict[str, Any]:
        said = parse_qs(form.decode())
        assert (said["client_id"], said["client_secret"]) == (["site"], ["s3cret&"])
        self.asked.append((said["audience"][0], patient))
        if self.raises is not None:
            raise self.raises
        return {"access_token": f"token-{len(self.asked)}", "expires_in": LIFE_S}


@pytest.fixture
def coordinator() -> Coordinator:
    return Coordinator()


@pytest.fixture
def ticket(coordinator: Coordinator) -> Ticket:
    return Ticket(Credential("http://c", "site", "s3cret&"), coordinator, lambda: coordinator.now)


def shown(ticket: Ticket, audience: Audience = Audience.BODY) -> str:
    return ticket.header(audience)["authorization"]


def test_each_audience_has_a_token_of_its_own_which_is_asked_for_once(ticket: Ticket, coordinator: Coordinator) -> None:
    assert [shown(ticket), shown(ticket), shown(ticket, Audience.CLIENT_SIDE)] == [
        "Bearer token-1", "Bearer token-1", "Bearer token-2",
    ]  # fmt: skip
    assert coordinator.asked == [("body", True), ("client-side", True)]


def test_it_is_renewed_at_half_its_life(ticket: Ticket, coordinator: Coordinator) -> None:
    shown(ticket)
    coordinator.now += LIFE_S / 2 - 1
    assert shown(ticket) == "Bearer token-1"
    coordinator.now += 1
    assert shown(ticket) == "Bearer token-2"


def test_while_the_coordinator_is_away_it_goes_on_to_the_end_of_its_life(
    ticket: Ticket, coordinator: Coordinator
) -> None:
    shown(ticket)
    coordinator.now += LIFE_S / 2
    coordinator.raises = Unreachable("away")
    assert [shown(ticket), shown(ticket)] == ["Bearer token-1"] * 2
    assert coordinator.asked[1:] == [("body", False)]  # not each time, and without patience
    coordinator.now += AGAIN_S
    assert shown(ticket) == "Bearer token-1"
    assert len(coordinator.asked) == 3
    coordinator.now += LIFE_S / 2 - AGAIN_S
    with pytest.raises(Unreachable):
        shown(ticket)


def test_one_that_was_refused_is_not_shown_again(ticket: Ticket) -> None:
    shown(ticket)
    ticket.forget(Audience.BODY)
    assert shown(ticket) == "Bearer token-2"


def test_a_revoked_credential_is_told_at_once(ticket: Ticket, coordinator: Coordinator) -> None:
    shown(ticket)
    coordinator.now += LIFE_S / 2
    coordinator.raises = Unauthenticated("revoked")
    with pytest.raises(Unauthenticated):
        shown(ticket)


def test_a_credential_does_not_show_its_secret_by_accident() -> None:
    credential = Credential("http://c", "site", "s3cret&")
    assert "s3cret" not in f"{credential} {credential!r} {[credential]}"
