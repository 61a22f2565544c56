"""The chain of commits: which version is current, and what each one took in.

A version v exists when `<area>/<v>/commit.json` does. It is created once, last, and by whoever is first; everything
that it names was written before. So whoever reads it finds all of it, and whoever loses the race has changed nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Protocol

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from ..errors import RoundClosed, RoundNotFound, StoreCorrupt, VersionNotFound
from ..store.verbs import Create, Exists, Get, Put
from . import keys
from .seals import is_sealed

Natural = Annotated[int, Field(ge=0)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class CommitStore(Put, Create, Get, Exists, Protocol):
    """What a chain needs of a store."""


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(Record):
    """An immutable file that a commit names, by key and content."""

    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Natural


class Taken(Record):
    """A contribution in a commit. `unit` is 0 and `batches` 1 in the client area, where a client sends one update.

    norm: of its gradient over its batches, or of the update, as it came; 0: not known.
    """

    client: Id
    unit: Natural
    batches: Annotated[int, Field(ge=1)]
    samples: Annotated[int, Field(ge=1)]
    version: Natural
    norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class LeftOut(Record):
    """A contribution that a commit settles without using it."""

    client: Id
    unit: Natural
    reason: str


class Commit(Record):
    """What `commit.json` says. `round` is the round it was made in, which it ends when `closes` is true."""

    format: Literal[1] = 1
    version: Natural
    parent: Natural | None = None
    round: Natural = 0
    closes: bool = False
    weights: File
    optimizer: File | None = None
    contributions: tuple[Taken, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def open_round(self) -> int:
        """The round that takes contributions after this commit."""
        return self.round + self.closes

    @property
    def settled(self) -> set[tuple[str, int]]:
        """(client, unit) of every contribution that it used or left out."""
        return {(one.client, one.unit) for one in self.contributions} | {
            (one.client, one.unit) for one in self.left_out
        }

    def to_bytes(self) -> bytes:
        return self.model_dump_json(indent=1).encode()

    @property
    def sha256(self) -> str:
        """Of its file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


class Chain:
    """The commits of one area of one run. Keeps what it has read: soft state that any other process can rebuild.

    on_commit: told of each commit that `create` made current.
    """

    def __init__(self, store: CommitStore, run: str, area: str) -> None:
        self.store = store
        self.run = run
        self.area = area
        self.on_commit: Callable[[Commit], None] = lambda _: None
        self._head: Commit | None = None
        self._settled: dict[int, tuple[int, set[tuple[str, int]]]] = {}

    def get(self, version: int) -> Commit:
        """The commit of a version.

        Raises:
            VersionNotFound: when there is none.
            StoreCorrupt: when the file is not a commit of that version.
        """
        key = keys.commit(self.run, self.area, version)
        try:
            commit = Commit.model_validate_json(self.store.get(key))
        except FileNotFoundError:
            raise VersionNotFound(f"Run '{self.run}' has no {self.area} version {version}.") from None
        except pydantic.ValidationError as error:
            raise StoreCorrupt(f"'{key}' is not a commit: {error.errors()[0]['msg']}.") from None
        if (commit.version, commit.parent) != (version, version - 1 if version else None):
            raise StoreCorrupt(f"'{key}' says that it is version {commit.version} after {commit.parent}.")
        for file in (commit.weights, commit.optimizer):
            if file is not None and not file.key.startswith(keys.area(self.run, self.area) + "/"):
                raise StoreCorrupt(f"'{key}' names the file '{file.key}', which is not of run '{self.run}'.")
        return commit

    def head(self, at_least: int = 0) -> Commit:
        """The newest commit.

        Raises:
            VersionNotFound: when the run has no version yet, or none as new as `at_least`.
        """
        known = self._head.version if self._head else -1
        newest = self._newest_from(known)
        if newest > known or self._head is None:
            self._head = self.get(max(newest, 0))
        if self._head.version < at_least:
            raise VersionNotFound(
                f"Run '{self.run}' has no {self.area} version {at_least}; the newest is {self._head.version}."
            )
        return self._head

    def known(self) -> Commit:
        """The newest commit that was seen so far, without asking the store when one was seen."""
        return self._head or self.head()

    def status(self) -> dict[str, Any]:
        """{"run", "version", "open_round", "sealed"}: where the run stands in this area."""
        head = self.head()
        sealed = is_sealed(self.store, self.run, head.open_round)
        return {"run": self.run, "version": head.version, "open_round": head.open_round, "sealed": sealed}

    def create(self, commit: Commit) -> bool:
        """Make `commit` current; False when another commit took its number first."""
        won = self.store.create(keys.commit(self.run, self.area, commit.version), commit.to_bytes())
        if won and (self._head is None or self._head.version < commit.version):
            self._head = commit
        if won:
            self.on_commit(commit)
        return won

    def write(self, number: int, kind: str, content: bytes) -> File:
        """Write an immutable file of version `number` under a name that its content decides."""
        digest = hashlib.sha256(content).hexdigest()
        file = File(
            key=f"{keys.version(self.run, self.area, number)}/{kind}-{digest}.safetensors",
            sha256=digest,
            size_bytes=len(content),
        )
        # A file of that name may be there and torn, after a power cut; what it should hold is what its name says.
        if not self.store.create(file.key, content) and self.store.get(file.key) != content:
            self.store.put(file.key, content)
        return file

    def read(self, file: File) -> bytes:
        """The content of a file that a commit names.

        Raises:
            StoreCorrupt: when it is gone or has other content, with the expected and the found hash.
        """
        try:
            content = self.store.get(file.key)
        except FileNotFoundError:
            raise StoreCorrupt(f"'{file.key}' is named by a commit and is not there.") from None
        found = hashlib.sha256(content).hexdigest()
        if found != file.sha256:
            raise StoreCorrupt(f"'{file.key}' has sha256 {found}; its commit says {file.sha256}.")
        return content

    def back(self, commit: Commit) -> Iterator[Commit]:
        """`commit` and its ancestors, newest first."""
        yield commit
        while commit.parent is not None:
            commit = self.get(commit.parent)
            yield commit

    def closing(self, round_: int) -> Commit | None:
        """The commit that closed a round; None while it is open.

        Raises:
            RoundNotFound: when the round has not begun.
        """
        head = self.head()
        if round_ > head.open_round:
            raise RoundNotFound(f"Round {round_} of run '{self.run}' has not begun; round {head.open_round} is open.")
        if round_ == head.open_round:
            return None
        return next(commit for commit in self.back(head) if commit.closes and commit.round == round_)

    def check_round(self, round_: int) -> None:
        """Raises RoundClosed or RoundNotFound unless the round is open, as far as this process knows."""
        if self.known().open_round == round_ or self.head().open_round == round_:
            return
        open_round = self.known().open_round
        if round_ > open_round:
            raise RoundNotFound(f"Round {round_} of run '{self.run}' has not begun; round {open_round} is open.")
        raise RoundClosed(f"Round {round_} of run '{self.run}' is closed.")

    def settled(self, round_: int) -> set[tuple[str, int]]:
        """(client, unit) of every contribution of the round that some commit lists. The caller's to read only."""
        head = self.head()
        seen, units = self._settled.get(round_, (-1, set()))
        for commit in self.back(head):
            if commit.version <= seen or commit.round < round_:
                break
            if commit.round == round_:
                units |= commit.settled
            if commit.version == seen + 1:
                break  # the one before is among them, and need not be read
        self._settled = {round_: (head.version, units)}
        return units

    def _newest_from(self, known: int) -> int:
        """The newest version that exists, by galloping up from `known` and bisecting: O(log n) look-ups."""
        low, step = known, 1
        while self._exists(low + step):
            low, step = low + step, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._exists(middle) else (low, middle)
        return low

    def _exists(self, version: int) -> bool:
        return self.store.exists(keys.commit(self.run, self.area, version))
