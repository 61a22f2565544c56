"""What stands in a store, each file by what it is for; and the marks that tell what `microsfl gc` has removed.

A mark is a file whose name says it: `removed/<area>-<v>-<r>.json` means that weights and optimizer files of versions
before v, and what clients sent in rounds before r, may be gone. It is written before the first of them goes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, get_args

from ..errors import InvalidId
from ..spec import ID_PATTERN, check_id
from ..store.verbs import List
from . import keys

Kind = Literal[
    "spec", "commit", "weights", "optimizer", "seal", "contribution", "partial", "activations", "update", "mark",
    "unknown",
]  # fmt: skip

_NUMBER = r"(?P<number>0|[1-9]\d{0,17})"
_AREA = rf"(?P<area>{keys.BODY}|{keys.CLIENT})"
_CLIENT = rf"(?P<client>{ID_PATTERN})"
_UNIT = r"(?P<unit>0|[1-9]\d{0,17})"
_HASH = r"(?P<sha256>[0-9a-f]{64})"
# Below runs/<run>/; `keys` makes the same names from their parts.
_NAMES: dict[Kind, re.Pattern[str]] = {
    "spec": re.compile(r"run\.json"),
    "commit": re.compile(rf"{_AREA}/{_NUMBER}/commit\.json"),
    "weights": re.compile(rf"{_AREA}/{_NUMBER}/weights-{_HASH}\.safetensors"),
    "optimizer": re.compile(rf"{_AREA}/{_NUMBER}/optimizer-{_HASH}\.safetensors"),
    "seal": re.compile(rf"rounds/{_NUMBER}/sealed\.json"),
    "contribution": re.compile(rf"rounds/{_NUMBER}/gradients/{_CLIENT}/{_UNIT}\.safetensors"),
    "partial": re.compile(rf"rounds/{_NUMBER}/partials/{_HASH}\.safetensors"),
    "activations": re.compile(rf"rounds/{_NUMBER}/activations/{_CLIENT}/{_UNIT}\.safetensors"),
    "update": re.compile(rf"rounds/{_NUMBER}/updates/{_CLIENT}\.safetensors"),
    "mark": re.compile(rf"removed/{_AREA}-{_NUMBER}-(?P<rounds>0|[1-9]\d{{0,17}})\.json"),
}
_AREA_OF: dict[Kind, str] = {
    "contribution": keys.BODY, "partial": keys.BODY, "activations": keys.BODY, "update": keys.CLIENT,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A file. `number` is its version or its round; in a mark, the first version that was kept."""

    key: str
    kind: Kind
    area: str = ""
    number: int = 0
    client: str = ""
    unit: int = 0
    sha256: str = ""
    rounds: int = 0


@dataclass(frozen=True)
class Mark:
    """Files of versions before `versions` and of rounds before `rounds` may have been removed."""

    area: str
    versions: int = 0
    rounds: int = 0

    def key(self, run: str) -> str:
        return f"runs/{run}/removed/{self.area}-{self.versions}-{self.rounds}.json"

    def to_bytes(self) -> bytes:
        return json.dumps({"format": 1, **vars(self)}).encode()


@dataclass(frozen=True)
class Inventory:
    """The files of one run in one store, in the order of their keys."""

    run: str
    entries: tuple[Entry, ...]

    def of(self, *kinds: Kind, area: str | None = None) -> Iterator[Entry]:
        """Those of these kinds, and of one area when it is named."""
        return (one for one in self.entries if one.kind in kinds and area in (None, one.area))

    @property
    def areas(self) -> list[str]:
        """ "body" or "client", whichever the store holds of the run; both only where somebody mixed them up."""
        return sorted({one.area for one in self.entries if one.area})


def take_stock(store: List, run: str | None = None) -> list[Inventory]:
    """The runs in a store, or the one that is named if it is there; a single listing."""
    listed = store.list("runs" if run is None else f"runs/{run}")
    grouped = groupby(sorted((key.split("/")[1], key) for key in listed), key=lambda pair: pair[0])
    return [Inventory(name, tuple(classify(name, key) for _, key in pairs)) for name, pairs in grouped]


def classify(run: str, key: str) -> Entry:
    """What the file `key` of a run is."""
    below = key.removeprefix(f"runs/{run}/")
    for kind in get_args(Kind)[:-1] if is_id(run) else ():
        match = _NAMES[kind].fullmatch(below)
        if match:
            parts: dict[str, Any] = {"area": _AREA_OF.get(kind, ""), **match.groupdict()}
            parts |= {name: int(parts[name]) for name in ("number", "unit", "rounds") if name in parts}
            return Entry(key, kind, **parts)
    return Entry(key, "unknown")


def marked(store: List, run: str, area: str) -> Mark:
    """What the marks of an area say together."""
    entries = [classify(run, key) for key in store.list(f"runs/{run}/removed")]
    ours = [one for one in entries if one.kind == "mark" and one.area == area]
    return Mark(area, max((one.number for one in ours), default=0), max((one.rounds for one in ours), default=0))


def is_id(run: str) -> bool:
    try:
        check_id(run)
    except InvalidId:
        return False
    return True
