"""Partial sums of a round: what replicas add up for the one that closes it.

A partial is the sum of one group of contributions (`sync.contributions`). Its name has the hash of the version that it
is for and of the units in it. So it is the same file whoever makes it, it never stands for other contributions, and who
does not find it adds them up again: nothing depends on whether anybody helps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ..core.average import WeightedMean
from ..core.unit import UnitKey
from ..errors import InputError
from ..store.verbs import Store
from ..wire.tensors import DTYPES, encode, opened
from . import keys
from .commits import LeftOut, Taken
from .contributions import Adder, Room, Sum, in_groups

_CODES = {dtype: code for code, dtype in DTYPES.items()}


def sums(adder: Adder, units: Sequence[UnitKey], parts: int) -> Iterator[Sum]:
    """The sums of the groups of these units, in order; of those that others have left, theirs. Each is to be used
    before the next.

    Args:
        parts: in how many the groups are divided; with 1 nobody has left anything.

    Raises:
        FileNotFoundError, StoreCorrupt: see `Adder.group`.
    """
    room = Room(adder.store)
    for group in in_groups(units):
        left = _find(adder, group, room) if parts > 1 else None
        yield adder.group(group) if left is None else left


def leave(adder: Adder, units: Sequence[UnitKey], part: int, parts: int, is_over: Callable[[], bool]) -> int:
    """Store the sums of a part of the groups of these units, then of others that are not there; how many.

    Args:
        is_over: asked before each is stored: nobody wants it any more, nor any other.

    Raises:
        FileNotFoundError, StoreCorrupt: see `Adder.group`.
    """
    groups, stored = in_groups(units), 0
    for number in _turns(len(groups), part, parts):
        key = _key(adder, groups[number])
        if adder.store.exists(key):
            continue
        found = adder.group(groups[number])
        if is_over():
            break
        stored += adder.store.create(key, _packed(found))
    return stored


def forget_round(store: Store, run: str, round_: int) -> None:
    """Remove those of a round that is closed."""
    for key in store.list(keys.partials(run, round_)):
        store.delete(key)


def _turns(groups: int, part: int, parts: int) -> list[int]:
    """The groups in the order in which one of several takes them: its own, and then those before and after them, from
    their end: who takes them from their beginning, as the one that closes the round does, comes towards it.
    """
    first, end = (-(-groups * number // parts) for number in (part, part + 1))
    return [*range(first, end), *reversed(range(first)), *reversed(range(end, groups))]


def _key(adder: Adder, units: Sequence[UnitKey]) -> str:
    what = json.dumps([adder.version, [(unit.client, unit.unit) for unit in units]])
    return keys.partial(units[0].run, units[0].round, hashlib.sha256(what.encode()).hexdigest())


def _find(adder: Adder, units: Sequence[UnitKey], room: Room) -> Sum | None:
    """What somebody has left of a group; None when there is nothing that can be used."""
    try:
        return _unpacked(adder, room.filled(_key(adder, units)))
    except (FileNotFoundError, InputError, KeyError, ValueError):  # a torn or strange one is as good as none
        return None


def _packed(one: Sum) -> bytes:
    means = {"gradients": one.reduction.gradients, "buffers": one.reduction.buffers}
    tensors = {f"{kind}.{name}": torch.from_numpy(a) for kind, mean in means.items() for name, a in mean.sums.items()}
    fields = {
        "type": "Partial",
        "taken": [list(taken.model_dump().values()) for taken in one.taken],
        "left_out": [list(left_out.model_dump().values()) for left_out in one.left_out],
        "weights": {kind: mean.weight for kind, mean in means.items()},
        "dtypes": {kind: {n: _CODES[dtype] for n, dtype in mean.dtypes.items()} for kind, mean in means.items()},
        "divisor": one.reduction.divisor,
    }
    return encode(tensors, fields, hashed=True)


def _unpacked(adder: Adder, content: memoryview) -> Sum:
    packet = opened(content, hashed=True)
    fields: dict[str, Any] = packet.fields
    found = Sum(adder.step.reduction())
    found.reduction.divisor = fields["divisor"]
    found.taken = [Taken(**dict(zip(Taken.model_fields, values, strict=True))) for values in fields["taken"]]
    found.left_out = [LeftOut(**dict(zip(LeftOut.model_fields, values, strict=True))) for values in fields["left_out"]]
    means: dict[str, WeightedMean] = {"gradients": found.reduction.gradients, "buffers": found.reduction.buffers}
    for entry in packet.entries:
        kind, _, name = entry.name.partition(".")
        means[kind].sums[name] = entry.array(packet.data)
    for kind, mean in means.items():
        mean.weight = fields["weights"][kind]
        mean.dtypes = {name: DTYPES[code] for name, code in fields["dtypes"][kind].items()}
    return found
