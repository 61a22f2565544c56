"""Activations that one replica leaves in the store for whichever gets the backward. Losing one costs a round trip."""

from __future__ import annotations

from typing import Protocol

from ..core.unit import UnitKey
from ..errors import InputError
from ..store.verbs import Delete, Get, List, Put
from ..wire.messages import Activations
from . import keys


class HandOverStore(Put, Get, List, Delete, Protocol):
    """What handing over needs of a store."""


def leave(store: HandOverStore, message: Activations) -> None:
    """Store the activations of a unit."""
    store.put(keys.activations(message.key), message.pack(hashed=True))


def find(store: HandOverStore, key: UnitKey) -> Activations | None:
    """The activations of a unit that some replica left; None when there are none that can be used."""
    try:
        found = Activations.unpack(store.get(keys.activations(key)), hashed=True)
        return found if found.key == key else None
    except (FileNotFoundError, InputError):  # a torn copy is as good as none: the client sends them again
        return None


def forget(store: HandOverStore, key: UnitKey) -> None:
    """Remove those of a unit; its contribution made them needless."""
    store.delete(keys.activations(key))


def forget_round(store: HandOverStore, run: str, round_: int) -> None:
    """Remove those of a round that is closed."""
    for key in store.list(keys.activations_of_round(run, round_)):
        store.delete(key)
