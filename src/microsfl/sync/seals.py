"""Closing a round without losing what was acknowledged.

A seal is a file, created once. Whoever closes a round creates the seal, *then* lists what is there. Whoever adds to a
round writes its file, *then* looks for the seal, and acknowledges only when there is none. So an acknowledged file
stood before the seal, and hence before the listing: the closing commit has it or names it as left out.
"""

from __future__ import annotations

from typing import Protocol

from ..errors import RoundClosed
from ..store.verbs import Create, Exists
from . import keys


class SealStore(Create, Exists, Protocol):
    """What a seal needs of a store."""


def seal(store: SealStore, run: str, round_: int) -> None:
    """Let nothing be acknowledged in the round any more; sealing again changes nothing."""
    store.create(keys.seal(run, round_), b"{}")


def is_sealed(store: SealStore, run: str, round_: int) -> bool:
    """True once someone began to close the round: that has to be brought to its end then."""
    return store.exists(keys.seal(run, round_))


def check_open(store: SealStore, run: str, round_: int) -> None:
    """Raises RoundClosed when the round was sealed. To be called after the write that is to be acknowledged."""
    if is_sealed(store, run, round_):
        raise RoundClosed(f"Round {round_} of run '{run}' is closed.")
