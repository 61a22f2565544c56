"""Writes to a folder that are on the disk when they return.

The order is what makes them safe: the content is synced *before* it gets its name, and the folder afterwards. A power
cut at any moment leaves the whole file or none under that name, never an empty one that a later create would take for
what was acknowledged. docs/decisions/0005-durability-in-the-url.md has the reasons.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

KNOWN_FOLDERS = 4096  # bound of the memory of folders whose names are on the disk


class DurableFolder:
    """Puts and creates below `root`, which exists."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: set[Path] = set()

    def put(self, key: str, value: bytes) -> None:
        """Write, replacing what was there."""
        target = self.root / key
        with self._staged(target, value) as staged:
            staged.replace(target)
        self._sync_names(target.parent)

    def create(self, key: str, value: bytes) -> bool:
        """Write unless there is a file; False when there is one, which is on the disk as well by then."""
        target = self.root / key
        with self._staged(target, value) as staged:
            try:
                os.link(staged, target)
                created = True
            except FileExistsError:
                # Its writer may have died before it was synced, or never syncs. The caller will count on it.
                _sync(target)
                created = False
        self._sync_names(target.parent)
        return created

    @contextlib.contextmanager
    def _staged(self, target: Path, value: bytes) -> Iterator[Path]:
        """A synced file beside `target`, for as long as the block lasts. `#` and a number hides it from lists."""
        staged = target.with_name(f"{target.name}#{uuid.uuid4().int}")
        try:
            with self._opened(staged) as file:
                file.write(value)
                file.flush()
                os.fsync(file.fileno())
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    def _opened(self, staged: Path) -> BinaryIO:
        try:
            return staged.open("xb")
        except FileNotFoundError:
            self._known.discard(staged.parent)
            staged.parent.mkdir(parents=True, exist_ok=True)
            return staged.open("xb")

    def _sync_names(self, folder: Path) -> None:
        """Sync a folder, and the folders above it unless this process did so before: names once there stay there."""
        _sync(folder)
        if folder in self._known:
            return
        for above in folder.parents[: len(folder.relative_to(self.root).parts)]:
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


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":  # Windows syncs no folders; NTFS keeps names in a journal
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
