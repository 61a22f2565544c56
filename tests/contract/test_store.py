"""One contract for every store: what microsfl relies on, and nothing that only one of them does."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microsfl.errors import InvalidSetting, StoreNotWritable, StoreUnavailable
from microsfl.store.objects import ObjectStore, open_store
from tests.s3_server import environment_for, s3_server

# Besides these, a real S3 server: MICROSFL_TEST_S3_URL=s3://bucket/prefix with the usual AWS_… variables.
KINDS = ["memory", "file", "file with fsync", "s3"]
REAL_S3 = os.environ.get("MICROSFL_TEST_S3_URL")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server("bucket") as url:
        yield url


@pytest.fixture(params=[*KINDS, *(["real s3"] if REAL_S3 else [])])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind; on S3 that is a prefix of its own."""
    prefix = f"test-{uuid.uuid4().hex}"
    if request.param == "s3":
        return open_store(f"s3://bucket/{prefix}", environment_for(request.getfixturevalue("s3")))
    urls = {
        "memory": "memory://",
        "file": f"file://{tmp_path}/a store with spaces",
        "file with fsync": f"file://{tmp_path}/new/store?fsync=true",
        "real s3": f"{REAL_S3}/{prefix}",
    }
    return open_store(urls[request.param])


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


def test_the_size_is_that_of_the_value(store: ObjectStore) -> None:
    store.put("a/b", b"123")
    assert store.size("a/b") == 3
    for nothing in ("a/c", "a"):  # "a" is a folder where there are folders
        assert not store.exists(nothing)
        with pytest.raises(FileNotFoundError):
            store.size(nothing)
        with pytest.raises(FileNotFoundError):
            store.get(nothing)


def test_a_value_is_read_into_memory_that_is_there(store: ObjectStore) -> None:
    memory = bytearray(b"........")
    store.put("a/b", b"12345")
    assert store.read_into("a/b", memoryview(memory)) == 5
    assert memory == b"12345..."
    store.put("a/b", b"")
    assert store.read_into("a/b", memoryview(memory)) == 0
    store.put("a/b", b"12345678")
    assert store.read_into("a/b", memoryview(memory)) == 8
    assert memory == b"12345678"
    store.put("a/b", b"123456789")
    with pytest.raises(BufferError):
        store.read_into("a/b", memoryview(memory))
    with pytest.raises(FileNotFoundError):
        store.read_into("a/c", memoryview(memory))


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
    assert list(store.list("x/a")) == []


def test_a_list_of_many_pages_is_whole(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    store = open_store("s3://bucket/pages", environment_for(s3))
    for number in range(10):
        store.create(f"x/{number}", b"")
    assert list(store.list("x")) == [f"x/{number}" for number in range(10)]


def test_two_prefixes_of_a_bucket_are_two_stores(s3: str) -> None:
    first, second, all_of_it = (open_store(f"s3://bucket{p}", environment_for(s3)) for p in ("/p", "/pq", ""))
    first.put("a/b", b"1")
    assert not second.exists("a/b")
    assert (list(first.list("a")), list(second.list("a"))) == (["a/b"], [])
    assert all_of_it.get("p/a/b") == b"1"


def test_deleted_is_gone(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    store.delete("a/b")
    assert not store.exists("a/b")
    assert store.create("a/b", b"2")


@pytest.mark.parametrize(
    "key", ["", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", ".", "a/./b", "a\0b", "a\nb", "a b"]
)
def test_keys_that_could_leave_the_store_are_refused(store: ObjectStore, key: str) -> None:
    for verb in (
        store.get, store.size, store.exists, store.delete, store.list, lambda k: store.read_into(k, memoryview(b"")),
        lambda k: store.put(k, b""), lambda k: store.create(k, b""),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="no store key"):
            verb(key)


def test_the_probe_leaves_nothing(store: ObjectStore) -> None:
    store.put("a/b", b"")
    store.probe()
    assert list(store.list("a")) == ["a/b"]


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "/tmp/x", "file://relative", "file:///a#b", "s4://bucket", "http://host/x", "memory://x",
        "s3://", "s3:///x", "s3://Bucket", "s3://bucket/a b", "s3://bucket/../x", "s3://key:secret@bucket/x",
    ],
)  # fmt: skip
def test_unknown_urls_are_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(InvalidSetting, match="file:///") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("file:///tmp/x?fsync=perhaps", "fsync"),
        ("file:///tmp/x?fsync=true&fsync=false", "fsync"),
        ("file:///tmp/x?retry_s=3", "retry_s"),
        ("s3://bucket/x?fsync=true", "fsync"),
        ("s3://bucket/x?timeout_s=0", "timeout_s"),
        ("s3://bucket/x?retry_s=soon", "retry_s"),
        ("s3://bucket/x?secret_access_key=hush", "secret_access_key"),
    ],
)
def test_an_option_that_a_url_does_not_have_is_named(url: str, option: str) -> None:
    with pytest.raises(InvalidSetting, match=f"'{option}'.*Known: ") as caught:
        open_store(url)
    assert "hush" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreNotWritable, match="file/store"):
        open_store(f"file://{tmp_path}/file/store")


def test_a_store_that_cannot_be_written_fails_the_probe_and_says_so(tmp_path: Path) -> None:
    """The folder is replaced by a file behind the store's back: root could write into a read-only folder."""
    store = open_store(f"file://{tmp_path}/store")
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(StoreNotWritable, match="cannot be used"):
        store.probe()
    with pytest.raises(StoreUnavailable, match="write 'a/b'"):
        store.put("a/b", b"")


@pytest.mark.parametrize("option", ["", "?fsync=true"])
def test_what_a_dead_writer_left_in_a_folder_is_not_seen(option: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"b#{uuid.uuid4().int}").write_bytes(b"half")
    store = open_store(f"file://{tmp_path}{option}")
    assert list(store.list("a")) == []
    assert store.create("a/b", b"whole")
    assert (list(store.list("a")), store.get("a/b")) == (["a/b"], b"whole")


def test_a_folder_that_cannot_be_read_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    """A key is either there or not there; what cannot be known is neither."""
    store = open_store(f"file://{tmp_path}/store")
    (tmp_path / "store" / "a").write_text("in the way")
    for verb in (store.exists, store.get, store.size, store.delete):
        with pytest.raises(StoreUnavailable, match="Not a directory"):
            verb("a/b")


# What file:///folder?fsync=true adds: the order of writing, syncing and naming.


class Disk:
    """What was synced and named, in order: inodes of files and folders, and "named"."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[Any] = []
        self.broken: set[int] = set()
        fsync, link, replace = os.fsync, os.link, os.replace

        def noted_fsync(descriptor: int) -> None:
            inode = os.fstat(descriptor).st_ino
            if inode in self.broken:
                raise OSError("the disk is broken")
            self.events.append(inode)
            fsync(descriptor)

        def noted(name: Any) -> Any:
            def call(*arguments: Any) -> Any:
                self.events.append("named")
                return name(*arguments)

            return call

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(os, "link", noted(link))
        monkeypatch.setattr(os, "replace", noted(replace))


def inode(path: Path) -> int:
    return path.stat().st_ino


@pytest.mark.parametrize("verb", ["put", "create"])
def test_with_fsync_content_is_on_the_disk_before_its_name_and_both_before_the_answer(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"file://{tmp_path}/new/store?fsync=true")
    disk = Disk(monkeypatch)
    getattr(store, verb)("a/b/c", b"1")
    root = tmp_path / "new" / "store"
    before, after = disk.events[: disk.events.index("named")], disk.events[disk.events.index("named") :]
    assert inode(root / "a/b/c") in before
    assert after[1:] == [inode(root / "a/b"), inode(root / "a"), inode(root)]
    disk.events.clear()
    getattr(store, verb)("a/b/d", b"1")
    assert disk.events == [inode(root / "a/b/d"), "named", inode(root / "a/b")]


def test_with_fsync_a_folder_that_was_removed_is_synced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"file://{tmp_path}?fsync=true")
    store.put("a/b/c", b"1")
    shutil.rmtree(tmp_path / "a")
    disk = Disk(monkeypatch)
    store.put("a/b/c", b"1")
    assert disk.events[-3:] == [inode(tmp_path / "a/b"), inode(tmp_path / "a"), inode(tmp_path)]


def test_with_fsync_new_folders_above_the_store_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    open_store(f"file://{tmp_path}/new/store?fsync=true")
    assert set(disk.events) == {inode(tmp_path), inode(tmp_path / "new")}


def test_with_fsync_what_is_there_already_is_on_the_disk_before_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer may have died between naming and syncing it."""
    open_store(f"file://{tmp_path}").create("a/b", b"not synced")
    store = open_store(f"file://{tmp_path}?fsync=true")
    disk = Disk(monkeypatch)
    assert not store.create("a/b", b"another")
    assert disk.events[disk.events.index("named") + 1 :] == [
        inode(tmp_path / "a/b"),
        inode(tmp_path / "a"),
        inode(tmp_path),
    ]
    assert store.get("a/b") == b"not synced"


def test_with_fsync_a_disk_that_fails_leaves_no_name_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"file://{tmp_path}?fsync=true")
    store.put("a/b", b"1")
    disk = Disk(monkeypatch)
    disk.broken.add(inode(tmp_path / "a"))
    with pytest.raises(StoreUnavailable, match=r"create 'a/c'.*the disk is broken"):
        store.create("a/c", b"1")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no disk")))
    with pytest.raises(StoreUnavailable, match=r"write 'a/d'.*no disk"):
        store.put("a/d", b"1")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b", "c"]
