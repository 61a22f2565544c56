"""Which credential a process shows to a coordinator, and its tickets there."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

from ..errors import InvalidSetting
from .credential import CREDENTIAL, Credential, kept_for
from .ticket import Ask, Ticket

_remembered: dict[str, Credential] = {}
_lock = threading.Lock()


def remember(credential: Credential) -> None:
    """Show this one to its coordinator from now on, in this process, where no file is named."""
    with _lock:
        _remembered[credential.coordinator] = credential


def forget(coordinator: str) -> None:
    with _lock:
        _remembered.pop(coordinator, None)


def credential_for(coordinator: str, path: str | None = None) -> Credential | None:
    """The credential in the file, or else the one that is remembered, or else in the file that `MICROSFL_CREDENTIAL`
    names, or else the one that this user keeps for the coordinator; None when there is none.

    Raises:
        InvalidSetting: when the file is not there, is something else, or others may read it; or is for another
            coordinator, which gives tokens that this one is not to see.
    """
    with _lock:
        known = None if path else _remembered.get(coordinator)
    if known is not None:
        return known
    path = path or os.environ.get(CREDENTIAL)
    if path:
        found = Credential.read(Path(path))
        if kept_for(found.coordinator) != kept_for(coordinator):
            raise InvalidSetting(
                f"{path} is a credential for {found.coordinator}, and {coordinator} may not see it. Name another "
                "coordinator, or another file with --credential."
            )
        return found
    kept = kept_for(coordinator)
    return Credential.read(kept) if kept.exists() else None


def ticket_for(coordinator: str, ask: Ask, path: str | None = None) -> Ticket | None:
    """The tokens for that coordinator's federation; None where there is no credential."""
    found = credential_for(coordinator, path)
    return None if found is None else Ticket(found, ask, read=partial(credential_for, coordinator, path))
