"""Contributions: how one is read, and how thousands are added up in constant memory.

The sum is a tree, by definition: of the units in sorted order, each GROUP that follow on each other are added up in
that order, and then the groups' sums in theirs, all in float64. Who reads what when has no part in that. So any number
of threads may read and add groups at the same time, and the sum has the same bits (docs/decisions/0008-reduce-at-scale.md).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import pydantic

from ..core.average import Array
from ..core.reduce import Reduction, StepRule
from ..core.unit import UnitKey
from ..errors import InputError, StoreCorrupt
from ..store.verbs import Get, Store
from ..wire.messages import Contribution
from ..wire.tensors import opened
from . import keys
from .ahead import in_order
from .commits import LeftOut, Taken

GROUP = 64
# Bound of what is read, and again of what is being added up, before its turn; one is always allowed.
AHEAD_BYTES = 16 * 2**20
# Of smaller contributions most of the work is Python's, which does one thing at a time.
WORTH_A_THREAD_BYTES = 2**17
SLACK_BYTES = 4096  # by which the headers of contributions to one body differ at most; more is allowed, and slower


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
    return Taken(client=one.client, unit=one.unit, batches=one.batches, samples=one.samples, version=one.version)


@dataclass
class Sum:
    """What contributions come to, and what a commit says about each of them."""

    reduction: Reduction
    taken: list[Taken]
    left_out: list[LeftOut]


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

    def sum(self, units: Sequence[UnitKey]) -> Sum:
        """The sum of the contributions of these units, which are sorted.

        Raises:
            FileNotFoundError: when one of them is not there any more.
            StoreCorrupt: when one is damaged.
        """
        total = Sum(self.step.reduction(), [], [])
        if not units:
            return total
        size = self.store.size(keys.contribution(units[0]))
        groups = [units[at : at + GROUP] for at in range(0, len(units), GROUP)]
        threads = _threads(size, len(groups))
        readers = max(1, min(self.store.readers, AHEAD_BYTES // (threads * size)))
        for group in in_order(groups, lambda group: self._group(group, size, readers), threads):
            total.reduction.merge(group.reduction)
            total.taken += group.taken
            total.left_out += group.left_out
        return total

    def _group(self, units: Sequence[UnitKey], size: int, readers: int) -> Sum:
        """The sum of one group, each read into memory that another one before it was read into."""
        group = Sum(self.step.reduction(), [], [])
        free: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(readers):
            free.put(_memory(size + SLACK_BYTES))

        def read_next(unit: UnitKey) -> tuple[UnitKey, memoryview, int]:
            return unit, *self._read(unit, free.get())

        for unit, memory, used in in_order(units, read_next, readers):
            self._add(group, unit, memory[:used])
            free.put(memory)
        if not group.reduction.is_finite():
            for unit in units:
                read(self.store, unit)  # raises for one that is not
        return group

    def _read(self, unit: UnitKey, memory: memoryview) -> tuple[memoryview, int]:
        """The file of a unit: in `memory`, or in more of it where that is too little, and its size."""
        path = keys.contribution(unit)
        try:
            return memory, self.store.read_into(path, memory)
        except BufferError:
            memory = _memory(self.store.size(path) + SLACK_BYTES)
            return memory, self.store.read_into(path, memory)

    def _add(self, group: Sum, unit: UnitKey, content: memoryview) -> None:
        """Take in a file. Of what it says only that is looked at which is used: the hash vouches for its writer."""
        try:
            packet = opened(content, hashed=True)
            fields = packet.fields
            _check_key(unit, (fields.get("run"), fields.get("round"), fields.get("client"), fields.get("unit")))
            one = Taken(
                client=unit.client,
                unit=unit.unit,
                batches=fields.get("batches", 1),
                samples=fields.get("samples"),
                version=fields.get("version"),
            )
        except (InputError, pydantic.ValidationError) as error:
            raise StoreCorrupt(f"'{keys.contribution(unit)}' cannot be read: {error}") from None
        age = self.version - one.version
        if self.max_staleness is not None and age > self.max_staleness:
            reason = f"computed on version {one.version}, {age} commits before; max_staleness is {self.max_staleness}"
            group.left_out.append(LeftOut(client=one.client, unit=one.unit, reason=reason))
            return
        gradients: dict[str, Array] = {}
        buffers: dict[str, Array] = {}
        for entry in packet.entries:
            kind, _, name = entry.name.partition(".")
            (gradients if kind == "gradients" else buffers)[name] = entry.array(packet.data), entry.dtype
        group.reduction.add(gradients, buffers, batches=one.batches, samples=one.samples, staleness=age)
        group.taken.append(one)


def _check_key(unit: UnitKey, said: tuple[Any, ...]) -> None:
    if said != (unit.run, unit.round, unit.client, unit.unit):
        raise StoreCorrupt(f"'{keys.contribution(unit)}' is the contribution of {said}.")


def _memory(size: int) -> memoryview:
    """Memory that can be written to, and is not filled with zeros first."""
    return memoryview(np.empty(size, np.uint8))  # type: ignore[arg-type]


def _threads(size: int, groups: int) -> int:
    """Threads for that many groups of contributions of that size: a sum in float64, what is read and what is added."""
    if size < WORTH_A_THREAD_BYTES:
        return 1
    return max(1, min(_cores(), groups, AHEAD_BYTES // (4 * size)))


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
