"""Folders for what benchmarks write, removed together when all of them are over.

Not one by one: whenever a file is created, ext4 passes over the inodes near it that were freed in the last minutes.
After a folder with thousands of contributions is gone, that can take 600 µs instead of 20: the next measurement would
show that and little else.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@contextmanager
def new_folder() -> Iterator[Path]:
    """A new, empty folder."""
    yield Path(tempfile.mkdtemp(dir=_root()))


@cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="microsfl-benchmark-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root
