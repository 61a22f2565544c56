"""What microsfl asks of a store, a protocol per verb; callers ask for the smallest one.

Keys are relative paths of segments joined by `/`; values are bytes. Nothing here knows what they mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .tally import Tally


class Put(Protocol):
    def put(self, key: str, value: bytes) -> None:
        """Write, replacing what was there; a reader sees the old value or the new one, never a part."""


class Create(Protocol):
    def create(self, key: str, value: bytes) -> bool:
        """Write unless the key exists, atomically among all writers; False when it is there already.

        What is there after a False may be what this very call wrote: over a network, the answer to its first try can
        get lost and its second try finds it. So True says "I was first", and False does not say "I was not".
        """


class Get(Protocol):
    def get(self, key: str) -> bytes:
        """The value. Raises FileNotFoundError when there is none."""


class ReadInto(Protocol):
    def read_into(self, key: str, buffer: memoryview) -> int:
        """Put the value at the beginning of `buffer`, and say how many bytes it has.

        Raises:
            FileNotFoundError: when there is none.
            BufferError: when it does not fit, and then anything may stand in `buffer`.
        """


class Exists(Protocol):
    def exists(self, key: str) -> bool:
        """True when the key has a value."""


class Size(Protocol):
    def size(self, key: str) -> int:
        """Bytes of the value. Raises FileNotFoundError when there is none."""


class List(Protocol):
    def list(self, prefix: str) -> Iterator[str]:
        """Keys below the folder `prefix`, in sorted order."""


class Delete(Protocol):
    def delete(self, key: str) -> None:
        """Remove the value; nothing happens when there is none."""


class Store(Put, Create, Get, ReadInto, Exists, Size, List, Delete, Protocol):
    """All verbs. readers: reads at a time that are worth it; more than 1 where to read is to wait. tally: what was done
    with it by this process."""

    @property
    def readers(self) -> int: ...

    @property
    def tally(self) -> Tally: ...
