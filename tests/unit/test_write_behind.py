"""Which activations get to the store, and which are spared the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from microsfl.core.unit import UnitKey
from microsfl.services import split_caches
from microsfl.services.split_caches import WriteBehind
from microsfl.store.objects import ObjectStore, open_store
from microsfl.sync import hand_over
from microsfl.wire.messages import Activations

SIZE = 4 * 100


class Watched:
    """A store that counts what is written, and lets a test wait for it."""

    def __init__(self, store: ObjectStore) -> None:
        self.store, self.wrote, self.deleted = store, threading.Semaphore(0), threading.Semaphore(0)
        self.writes: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def put(self, key: str, value: bytes) -> None:
        self.store.put(key, value)
        self.writes.append(key)
        self.wrote.release()

    def delete(self, key: str) -> None:
        self.store.delete(key)
        self.deleted.release()


def unit(number: int) -> Activations:
    return Activations(run="r", round=0, client="c", unit=number, activations={"0": torch.ones(100)})


def key(number: int) -> UnitKey:
    return UnitKey("r", 0, "c", number)


@pytest.fixture
def store() -> Watched:
    return Watched(open_store("memory://"))


@pytest.fixture
def writer(store: Watched, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteBehind]:
    monkeypatch.setattr(split_caches, "HOLD_S", 3600.0)
    one = WriteBehind(store, 3 * SIZE)  # type: ignore[arg-type]
    yield one
    one.close()


def test_those_of_a_client_that_goes_elsewhere_are_stored_at_once(writer: WriteBehind, store: Watched) -> None:
    writer.put(unit(0), hold=True)
    writer.put(unit(1), hold=False)
    assert store.wrote.acquire(timeout=10)
    assert hand_over.find(store, key(1)) is not None  # type: ignore[arg-type]
    assert hand_over.find(store, key(0)) is None  # type: ignore[arg-type]


def test_those_that_are_forgotten_in_time_never_reach_the_store(writer: WriteBehind, store: Watched) -> None:
    for number in range(50):
        writer.put(unit(number), hold=True)
        writer.forget(key(number))
    assert writer.waiting_bytes == 0
    writer.close()
    assert store.writes == []


def test_those_that_are_held_are_stored_when_they_are_due(store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_caches, "HOLD_S", 0.01)
    writer = WriteBehind(store, 3 * SIZE)  # type: ignore[arg-type]
    writer.put(unit(0), hold=True)
    assert store.wrote.acquire(timeout=10)
    writer.forget(key(0))
    assert store.deleted.acquire(timeout=10)
    assert hand_over.find(store, key(0)) is None  # type: ignore[arg-type]
    writer.close()


def test_those_that_are_held_are_stored_when_the_server_ends(writer: WriteBehind, store: Watched) -> None:
    writer.put(unit(0), hold=True)
    writer.close()
    assert hand_over.find(store, key(0)) is not None  # type: ignore[arg-type]


def test_what_does_not_fit_is_not_stored(writer: WriteBehind, store: Watched) -> None:
    for number in range(5):
        writer.put(unit(number), hold=True)
        assert writer.waiting_bytes <= 3 * SIZE
    writer.put(unit(2), hold=True)  # again, in its own place
    writer.close()
    assert sorted(store.writes) == [f"runs/r/rounds/0/activations/c/{number}.safetensors" for number in range(3)]
