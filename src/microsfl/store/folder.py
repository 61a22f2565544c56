"""A local folder: whole files or none, and on request on the disk before the call returns.

The order is what makes writes safe with `fsync`: the content is synced *before* it gets its name, and the folder
afterwards. A power cut at any moment leaves the whole file or none under that name, never an empty one that a later
create would take for what was acknowledged. docs/decisions/0005-durability-in-the-url.md has the reasons.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from .retry import Failure

KNOWN_FOLDERS = 4096  # bound of the memory of folders whose names are on the disk
_STAGED = re.compile(r"#\d+$")  # what is being written, or was when its writer died; no key has a `#`


class Folder:
    """A back end of `store.objects` on the operating system's own calls.

    Args:
        root: exists.
        fsync: what was written is on the disk when a call returns.
    """

    readers = 1  # what is read comes from memory more often than not, and then it keeps the processor busy

    def __init__(self, root: Path, *, fsync: bool = False) -> None:
        self.root = root
        self.fsync = fsync
        self._known: set[str] = set()

    def put(self, key: str, value: bytes) -> None:
        target = f"{self.root}/{key}"
        with self._staged(target, value) as staged:
            os.replace(staged, target)
        self._sync_names(target)

    def create(self, key: str, value: bytes) -> bool:
        """Write unless there is a file; False when there is one, which with `fsync` is on the disk as well by then."""
        target = f"{self.root}/{key}"
        created = True
        with self._staged(target, value) as staged:
            try:
                os.link(staged, target)
            except FileExistsError:
                # Its writer may have died before it was synced, or never syncs. The caller will count on it.
                if self.fsync:
                    _sync(target)
                created = False
        self._sync_names(target)
        return created

    def get(self, key: str) -> bytes:
        with FileIO(f"{self.root}/{key}") as file:
            return file.read()

    def read_into(self, key: str, buffer: memoryview) -> int:
        size = 0
        with FileIO(f"{self.root}/{key}") as file:
            while got := file.readinto(buffer[size:]):
                size += got
            if size == len(buffer) and file.read(1):
                raise BufferError(key)
        return size

    def size(self, key: str) -> int:
        found = os.stat(f"{self.root}/{key}")
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(key)
        return found.st_size

    def list(self, prefix: str) -> list[str]:
        found: list[str] = []
        waiting = [prefix]
        while waiting:
            folder = waiting.pop()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # it went meanwhile, or is a file
                for entry in os.scandir(f"{self.root}/{folder}"):
                    if entry.is_dir():
                        waiting.append(f"{folder}/{entry.name}")
                    elif not _STAGED.search(entry.name):
                        found.append(f"{folder}/{entry.name}")
        return found

    def delete(self, key: str) -> None:
        os.unlink(f"{self.root}/{key}")

    def is_missing(self, error: Exception) -> bool:
        return isinstance(error, FileNotFoundError | IsADirectoryError)

    def failure(self, error: Exception) -> Failure:
        return Failure(getattr(error, "strerror", None) or str(error) or type(error).__name__, passes=False)

    @contextlib.contextmanager
    def _staged(self, target: str, value: bytes) -> Iterator[str]:
        """A file beside `target`, for as long as the block lasts. `#` and a number hides it from lists."""
        staged = f"{target}#{uuid.uuid4().int}"
        try:
            descriptor = self._opened(staged)
            try:
                left = memoryview(value)
                while left:
                    left = left[os.write(descriptor, left) :]
                if self.fsync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            yield staged
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(staged)

    def _opened(self, staged: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            return os.open(staged, flags, 0o666)
        except FileNotFoundError:
            folder = os.path.dirname(staged)
            self._known.discard(folder)
            os.makedirs(folder, exist_ok=True)
            return os.open(staged, flags, 0o666)

    def _sync_names(self, target: str) -> None:
        """Sync a file's folder, and those above it unless this process did so before: names once there stay there."""
        if not self.fsync:
            return
        folder = os.path.dirname(target)
        _sync(folder)
        if folder in self._known:
            return
        for above in Path(folder).parents[: len(Path(folder).relative_to(self.root).parts)]:
            _sync(above)
        if len(self._known) >= KNOWN_FOLDERS:
            self._known.clear()
        self._known.add(folder)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, their names on the disk when this returns."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        _sync(one.parent)


def _sync(path: Path | str) -> None:
    if os.path.isdir(path) and os.name != "posix":  # Windows syncs no folders; NTFS keeps names in a journal
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
