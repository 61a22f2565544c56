"""Contributions: how one is read, and how thousands are added up in constant memory.

The sum is a tree, by definition: of the units in sorted order, each GROUP that follow on each other are added up in
that order, and then the groups' sums in theirs, all in float64. So it has the same bits whoever adds up which group
(`sync.partials`), and however many threads read ahead. docs/decisions/0008-reduce-at-scale.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pydantic

from ..core.average import Array, small_steps
from ..core.reduce import Reduction, StepRule
from ..core.unit import UnitKey
from ..errors import InputError, StoreCorrupt
from ..store.verbs import Get, Store
from ..wire.messages import Contribution
from ..wire.tensors import opened
from . import keys
from .ahead import in_order
from .commits import LeftOut, Taken

GROUP = 128
# Bound of what is read ahead, what is just being added up among it; two contributions are always allowed.
AHEAD_BYTES = 16 * 2**20
COUNTS = ("batches", "samples", "version", "norm")
SLACK_BYTES = 4096  # the headers of contributions to one body differ by less


def read(store: Get, unit: UnitKey) -> Contribution:
    """The contribution of a unit.

    Raises:
        FileNotFoundError: when there is none.
        StoreCorrupt: when it is damaged.
    """
    path = keys.contribution(unit)
    try:
        contribution = Contribution.unpack(store.get(path), hashed=True)
    except InputError as error:
        raise StoreCorrupt(f"'{path}' cannot be read: {error}") from None
    _check_key(unit, (contribution.run, contribution.round, contribution.client, contribution.unit))
    return contribution


def as_taken(one: Contribution) -> Taken:
    counts = {"batches": one.batches, "samples": one.samples, "version": one.version}
    return Taken(client=one.client, unit=one.unit, norm=one.norm, **counts)


def in_groups(units: Sequence[UnitKey]) -> list[Sequence[UnitKey]]:
    """The groups that the sum of these units, which are sorted, is made of."""
    return [units[first : first + GROUP] for first in range(0, len(units), GROUP)]


@dataclass
class Sum:
    """What contributions come to, and what a commit says about each of them."""

    reduction: Reduction
    taken: list[Taken] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def merge(self, other: Sum) -> None:
        """Take in `other`, which is not to be used any more."""
        self.reduction.merge(other.reduction)
        self.taken += other.taken
        self.left_out += other.left_out


@dataclass(frozen=True)
class Term:
    """What one contribution adds. The arrays are where it was read into."""

    taken: Taken
    gradients: dict[str, Array] = field(default_factory=dict)
    buffers: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Adder:
    """Adds up contributions to what is to follow a version.

    max_staleness: commits between the version of a contribution and the one that takes it; older ones are left out.
    None: none is.
    """

    store: Store
    step: StepRule
    version: int
    max_staleness: int | None

    def group(self, units: Sequence[UnitKey]) -> Sum:
        """The sum of a group.

        Raises:
            FileNotFoundError: when one of them is not there any more.
            StoreCorrupt: when one is damaged.
        """
        found = Sum(self.step.reduction())
        with small_steps():
            for term in self._terms(units):
                self._add(found, term)
        if not found.reduction.is_finite():
            for unit in units:
                read(self.store, unit)  # raises for one that is not
        return found

    def _terms(self, units: Sequence[UnitKey]) -> Iterator[Term]:
        """What each of the units adds, in memory that is used again for those after it."""
        size = self.store.size(keys.contribution(units[0])) + SLACK_BYTES
        readers = self.store.readers
        threads = readers if readers > 1 else 0
        rooms = max(2, min(2 * threads, AHEAD_BYTES // size)) if threads else 1
        return in_order(units, self._term, [Room(self.store, size) for _ in range(rooms)], min(threads, rooms))

    def _term(self, unit: UnitKey, room: Room) -> Term:
        """What a unit adds. Of what its file says only what is used is looked at: its hash vouches for the rest."""
        path = keys.contribution(unit)
        try:
            packet = opened(room.filled(path), hashed=True)
            said = packet.fields
            _check_key(unit, tuple(said.get(name) for name in ("run", "round", "client", "unit")))
            counts = {"batches": 1, "norm": 0.0, **{name: said[name] for name in COUNTS if name in said}}
            term = Term(Taken(client=unit.client, unit=unit.unit, **counts))
        except (InputError, pydantic.ValidationError) as error:
            raise StoreCorrupt(f"'{path}' cannot be read: {error}") from None
        for entry in packet.entries:
            kind, _, name = entry.name.partition(".")
            (term.gradients if kind == "gradients" else term.buffers)[name] = entry.array(packet.data), entry.dtype
        return term

    def _add(self, group: Sum, term: Term) -> None:
        one = term.taken
        age = self.version - one.version
        if self.max_staleness is not None and age > self.max_staleness:
            reason = f"computed on version {one.version}, {age} commits before; max_staleness is {self.max_staleness}"
            group.left_out.append(LeftOut(client=one.client, unit=one.unit, reason=reason))
        else:
            counts = {"batches": one.batches, "samples": one.samples, "staleness": age}
            group.reduction.add(term.gradients, term.buffers, **counts)
            group.taken.append(one)


class Room:
    """Memory that files are read into, one after the other. It grows where one does not fit."""

    def __init__(self, store: Store, size: int = 0) -> None:
        self.store = store
        self._fit(size)

    def filled(self, path: str) -> memoryview:
        """The file at `path`, until the next one is read."""
        try:
            size = self.store.read_into(path, self.view)
        except BufferError:
            self._fit(self.store.size(path))
            size = self.store.read_into(path, self.view)
        return self.view[:size]

    def _fit(self, size: int) -> None:
        self.view = memoryview(np.empty(size, np.uint8))  # type: ignore[arg-type]


def _check_key(unit: UnitKey, said: tuple[Any, ...]) -> None:
    if said != (unit.run, unit.round, unit.client, unit.unit):
        raise StoreCorrupt(f"'{keys.contribution(unit)}' is the contribution of {said}.")
