"""The audit trail: who did what when. Entries are only ever added, and each has the hash of the one before it.

So nobody changes, inserts or takes out an entry without changing all hashes after it; whoever has written down the
hash of an entry elsewhere can tell. An entry is written in the transaction of what it is about, or that is not done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select, update

from . import tables

BEGIN = "0" * 64  # what the first entry has for the hash of the one before it
PAGE = 1000  # entries read at a time

Json = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """What is to be written. at: UTC unix seconds. object: what it was done to. details: plain JSON."""

    at: float
    actor: str
    action: str
    object: str
    details: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """An entry as it is kept: `details` is JSON text."""

    seq: int
    at: float
    actor: str
    action: str
    object: str
    details: str
    previous: str
    hash: str

    def right_hash(self) -> str:
        """sha256 of a JSON list of all that comes before the hash, in this order, in ASCII and without blanks."""
        content = [self.seq, self.at, self.actor, self.action, self.object, self.details, self.previous]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Head:
    """The last entry: its number, 0 where there is none, and its hash."""

    seq: int
    hash: str


class Trail:
    """The verbs; both raise StoreUnavailable when the database does not do what it is asked."""

    def __init__(self, transaction: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._transaction = transaction

    def add(self, entries: Iterable[Entry]) -> None:
        """Add entries about what is kept nowhere else."""
        with self._transaction() as connection:
            append(connection, entries)

    def after(self, seq: int, limit: int = PAGE) -> tuple[list[Link], Head]:
        """The entries after that number, at most `limit`, and the last one of all, as it was just before."""
        with self._transaction() as connection:
            last = head(connection)  # other transactions may end in between
            return read(connection, seq, limit), last


def append(connection: Connection, entries: Iterable[Entry]) -> None:
    """Add the entries to the trail, in the connection's transaction, of which this is the last part: until its end,
    no other transaction adds any."""
    entries = list(entries)
    if not entries:
        return
    place = tables.trail_head
    connection.execute(update(place).values(seq=place.c.seq + len(entries)))  # which locks the row
    seq, previous = connection.execute(select(place.c.seq, place.c.hash)).one()
    rows = []
    for number, one in enumerate(entries, seq - len(entries) + 1):
        details = json.dumps(one.details, sort_keys=True, separators=(",", ":"), allow_nan=False)
        link = Link(number, one.at, one.actor, one.action, one.object, details, previous, "")
        previous = link.right_hash()
        rows.append({**vars(link), "hash": previous})
    connection.execute(insert(tables.trail), rows)
    connection.execute(update(place).values(hash=previous))


def read(connection: Connection, seq: int, limit: int = PAGE) -> list[Link]:
    """The entries after that number, in order."""
    rows = select(tables.trail).where(tables.trail.c.seq > seq).order_by(tables.trail.c.seq).limit(limit)
    return [Link(**row) for row in connection.execute(rows).mappings()]


def head(connection: Connection) -> Head:
    """Where the database says that the trail ends."""
    row = connection.execute(select(tables.trail_head.c.seq, tables.trail_head.c.hash)).one_or_none()
    return Head(0, BEGIN) if row is None else Head(*row)


class Check:
    """Whether entries, which are given in order, are a trail; `broken` is what is wrong with the first that is not."""

    def __init__(self) -> None:
        self.head = Head(0, BEGIN)
        self.broken: str | None = None
        self.hashes_seen: set[str] = set()

    def take(self, links: Sequence[Link], wanted: str | None = None) -> None:
        """wanted: a hash that is looked for; see `has_seen`."""
        for link in links:
            if self.broken is None:
                self.broken = self._against(link)
            if self.broken is not None:
                return
            self.head = Head(link.seq, link.hash)
            if link.hash == wanted:
                self.hashes_seen.add(link.hash)

    def end(self, said: Head) -> None:
        """said: where the trail ends, as its database has it."""
        if self.broken is None and said != self.head:
            self.broken = f"the trail ends with entry {self.head.seq}, and should end with {said.seq} ({said.hash})"

    def has_seen(self, wanted: str) -> bool:
        return wanted in self.hashes_seen

    def _against(self, link: Link) -> str | None:
        if link.seq != self.head.seq + 1:
            return f"after entry {self.head.seq} comes {link.seq}: what was between them is gone"
        if link.previous != self.head.hash:
            return f"entry {link.seq} does not follow on the one before it"
        if link.hash != link.right_hash():
            return f"entry {link.seq} is not what it was when it was written: its hash is another one"
        return None
