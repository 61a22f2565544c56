"""One contract for every store: what microsfl relies on, and nothing that only one of them does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from microsfl.errors import InvalidSetting, StoreNotWritable, StoreUnavailable
from microsfl.store.objects import ObjectStore, open_store

STORES: dict[str, Callable[[Path], str]] = {
    "memory": lambda _: "memory://",
    "file": lambda folder: f"file://{folder}/a store with spaces",
}


@pytest.fixture(params=STORES.values(), ids=STORES.keys())
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return open_store(request.param(tmp_path))


def test_what_was_put_is_got(store: ObjectStore) -> None:
    store.put("a/b/c.bin", b"\0\xff" * 1000)
    assert store.get("a/b/c.bin") == b"\0\xff" * 1000
    store.put("a/b/c.bin", b"")
    assert store.get("a/b/c.bin") == b""


def test_what_is_not_there_is_not_found(store: ObjectStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.get("a/b")
    assert not store.exists("a/b")
    assert list(store.list("a")) == []
    store.delete("a/b")


def test_create_writes_once(store: ObjectStore) -> None:
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.get("a/b") == b"first"


def test_of_racing_creates_one_wins_each_key(store: ObjectStore) -> None:
    wins: list[tuple[int, int]] = []
    barrier = threading.Barrier(8)

    def race(me: int) -> None:
        barrier.wait()
        wins.extend((number, me) for number in range(40) if store.create(f"race/{number}", str(me).encode()))

    threads = [threading.Thread(target=race, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in wins) == list(range(40))
    assert all(store.get(f"race/{number}") == str(me).encode() for number, me in wins)


def test_lists_are_sorted_and_stay_below_the_folder(store: ObjectStore) -> None:
    for key in ("x/b/2", "x/b/10", "x/a", "xy/z", "x/b.c"):
        store.put(key, b"")
    assert list(store.list("x")) == ["x/a", "x/b.c", "x/b/10", "x/b/2"]
    assert list(store.list("x/b")) == ["x/b/10", "x/b/2"]


def test_deleted_is_gone(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    store.delete("a/b")
    assert not store.exists("a/b")
    assert store.create("a/b", b"2")


@pytest.mark.parametrize(
    "key", ["", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", ".", "a/./b", "a\0b", "a\nb", "a b"]
)
def test_keys_that_could_leave_the_store_are_refused(store: ObjectStore, key: str) -> None:
    for verb in (store.get, store.exists, store.delete, lambda k: store.put(k, b""), lambda k: store.create(k, b"")):
        with pytest.raises(ValueError, match="no store key"):
            verb(key)


def test_the_probe_leaves_nothing(store: ObjectStore) -> None:
    store.put("a/b", b"")
    store.probe()
    assert list(store.list("a")) == ["a/b"]


@pytest.mark.parametrize("url", ["", "x", "/tmp/x", "file://relative", "s4://bucket", "http://host/x", "memory://x"])
def test_unknown_urls_are_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(InvalidSetting, match="file:///"):
        open_store(url)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreNotWritable, match="file/store"):
        open_store(f"file://{tmp_path}/file/store")


def test_a_store_that_cannot_be_written_fails_the_probe_and_says_so(tmp_path: Path) -> None:
    """The folder is replaced by a file behind the store's back: root could write into a read-only folder."""
    store = open_store(f"file://{tmp_path}/store")
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(StoreNotWritable, match="cannot be written"):
        store.probe()
    with pytest.raises(StoreUnavailable, match="write 'a/b'"):
        store.put("a/b", b"")
