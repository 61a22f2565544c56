"""Traces that follow a unit from the client to the commit. Off unless a collector is named.

No process carries another's state for it. The ids of a unit's trace and of its first span are hashes of the unit's
key, so whoever works on the unit adds to the same trace: docs/decisions/0012-traces-by-key.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

from ..core.unit import UnitKey
from ..wire.timing import Timing

HEADER = "traceparent"
_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0[01]", re.ASCII)


class Ids(NamedTuple):
    """Of a trace and of its first span."""

    trace: int
    span: int


def unit_ids(key: UnitKey) -> Ids:
    return _ids("unit", key.run, key.round, key.client, key.unit)


def commit_ids(run: str, version: int) -> Ids:
    """Of the trace of the commit that makes a version of the body."""
    return _ids("commit", run, version)


def is_sampled(trace: int, ratio: float) -> bool:
    """The same for everybody, and that of opentelemetry's TraceIdRatioBased."""
    return trace & (2**64 - 1) < round(ratio * 2**64)


def header_of(ids: Ids) -> str:
    return f"00-{ids.trace:032x}-{ids.span:016x}-01"


def parent_in(header: str | None, own: Ids) -> Ids:
    """The span that asked, if the header names one of the unit's own trace; else its first one."""
    found = _PARENT.fullmatch(header) if header is not None and len(header) < 100 else None
    if found is None or int(found[1], 16) != own.trace or not int(found[2], 16):
        return own
    return Ids(own.trace, int(found[2], 16))


class Spent(NamedTuple):
    """What a server did for a unit besides the phases of its `Timing`, in unix nanoseconds."""

    name: str
    began_ns: int
    ended_ns: int


class Traces(Protocol):
    """Where spans go; see `otel.Otel`. Where it is None instead, there are none."""

    def span(self, key: UnitKey, name: str, *, asks: bool = False) -> AbstractContextManager[str | None]:
        """A part of a unit's way, for a `with` block; its header for a request, where it `asks` a server."""

    def unit(self, key: UnitKey, began_ns: int) -> None:
        """The first span of a unit, which is through."""

    def served(self, key: UnitKey, path: str, parent: str | None, timing: Timing, spent: Sequence[Spent]) -> None:
        """What a server did with a request that it has just answered; `parent` is the header of that."""

    def refused(self, key: UnitKey, path: str, parent: str | None, began_ns: int, code: str) -> None:
        """A request that a server did not answer well."""

    def committed(self, run: str, version: int, units: Sequence[UnitKey], began_ns: int) -> None:
        """A commit that has just been made, of these units."""

    def close(self) -> None:
        """Hand over what has not been handed over."""


_NOTHING: AbstractContextManager[None] = nullcontext()


def span(traces: Traces | None, key: UnitKey, name: str) -> AbstractContextManager[str | None]:
    return _NOTHING if traces is None else traces.span(key, name)


def _ids(*parts: object) -> Ids:
    digest = hashlib.sha256("\x1f".join(("microsfl", *map(str, parts))).encode()).digest()
    # 0 is no id.
    return Ids(int.from_bytes(digest[:16], "big") or 1, int.from_bytes(digest[16:24], "big") or 1)
