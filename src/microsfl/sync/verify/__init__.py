"""Walking a store: everything that a run's files say about each other, checked. Reads one file at a time, writes none.

What it cannot see: the loss of the newest commit, without which the store is that of a run that ended just before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...errors import RunNotFound, StoreCorrupt, UnsupportedFormat
from ...spec import RunSpec
from .. import keys
from ..inventory import Inventory, Mark, is_id, take_stock
from ..runs import load_run
from .chain import RESTORE, ChainCheck, is_canonical
from .findings import Finding, VerifyStore, read
from .rounds import RoundsCheck

__all__ = ["Finding", "Report", "VerifyStore", "verify"]


@dataclass(frozen=True)
class Report:
    """runs: that were found. files: their number. findings: (store, finding), in the order of stores and runs."""

    runs: tuple[str, ...]
    files: int
    findings: tuple[tuple[str, Finding], ...]

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for _, finding in self.findings)


def verify(stores: Mapping[str, VerifyStore], run: str | None = None) -> Report:
    """Check every run in these stores, or one; `stores` by name (a run's body and client area belong together).

    Raises:
        StoreUnavailable: when a store does not answer.
    """
    runs: set[str] = set()
    files = 0
    findings: list[tuple[str, Finding]] = []
    specs: dict[str, list[tuple[str, RunSpec]]] = {}
    for name, store in stores.items():
        for stock in take_stock(store, run):
            runs.add(stock.run)
            files += len(stock.entries)
            findings += [(name, finding) for finding in verify_run(store, stock)]
            specs.setdefault(stock.run, []).extend((name, spec) for spec in _spec_of(store, stock))
    return Report(tuple(sorted(runs)), files, (*findings, *_unlike(specs)))


def verify_run(store: VerifyStore, stock: Inventory) -> Iterator[Finding]:
    """The findings about one run in one store."""
    yield from _strangers(stock)
    if not is_id(stock.run):
        return
    yield from _spec(store, stock)
    yield from _marks(store, stock)
    for area in stock.areas:
        chain = ChainCheck(store, stock, area)
        yield from chain.findings()
        yield from RoundsCheck(chain).findings()


def _strangers(stock: Inventory) -> Iterator[Finding]:
    for entry in stock.of("unknown"):
        meaning = "Not a file of microsfl's; nothing reads it, and microsfl gc leaves it alone."
        yield Finding("note", stock.run, entry.key, "a file of a run", "another name", meaning)


def _spec(store: VerifyStore, stock: Inventory) -> Iterator[Finding]:
    key, wanted = keys.spec(stock.run), "a specification that this version reads"
    try:
        spec = load_run(store, stock.run)
    except (StoreCorrupt, RunNotFound) as error:
        found = "no file" if isinstance(error, RunNotFound) else str(error)
        yield Finding("error", stock.run, key, wanted, found, f"No server opens the run. {RESTORE}")
        return
    except UnsupportedFormat as error:
        meaning = "Another version of microsfl wrote the run; verify and resume it with that one."
        yield Finding("error", stock.run, key, wanted, str(error), meaning)
        return
    if spec.run.name != stock.run:
        found = f"of run '{spec.run.name}'"
        yield Finding("error", stock.run, key, f"of run '{stock.run}'", found, f"It is another run's. {RESTORE}")
    elif not is_canonical(read(store, key) or b"null"):
        yield Finding(
            "error", stock.run, key, "JSON as microsfl writes it", "other spelling", f"It was edited. {RESTORE}"
        )


def _marks(store: VerifyStore, stock: Inventory) -> Iterator[Finding]:
    for entry in stock.of("mark"):
        content, mark = read(store, entry.key), Mark(entry.area, entry.number, entry.rounds)
        if content is not None and content != mark.to_bytes():
            yield Finding(
                "error", stock.run, entry.key, mark.to_bytes().decode(), f"{len(content)} other bytes",
                "It was edited; its name is what counts.",
            )  # fmt: skip


def _unlike(specs: Mapping[str, list[tuple[str, RunSpec]]]) -> Iterator[tuple[str, Finding]]:
    """Both areas of a run have the same specification; which one was changed, nothing here can tell."""
    for run, places in specs.items():
        for store, spec in places[1:]:
            if spec != places[0][1]:
                expected, found = f"the same as in {places[0][0]}", _difference(places[0][1], spec)
                meaning = f"One of the two was edited, or they are two runs of one name. {RESTORE}"
                yield store, Finding("error", run, keys.spec(run), expected, found, meaning)


def _difference(one: RunSpec, other: RunSpec) -> str:
    first, second = one.model_dump(mode="json"), other.model_dump(mode="json")
    unlike = [f"{table}.{key}" for table in first for key in first[table] if first[table][key] != second[table][key]]
    return f"another {', '.join(unlike)}"


def _spec_of(store: VerifyStore, stock: Inventory) -> list[RunSpec]:
    with contextlib.suppress(StoreCorrupt, RunNotFound, UnsupportedFormat):  # which are findings of their own
        return [load_run(store, stock.run)]
    return []
