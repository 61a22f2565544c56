"""Which files a run does not need any more. Only those go; a commit, a seal, a specification or a stranger never does.

The rule, with `keep` = N and round o open: what the newest N rounds (o among them) were computed with and wrote stays.
That is, of files:

- weights and optimizer states that a commit names which left round o-N+1 or a later one open: with a commit a round
  the N newest versions, else every version since the first of those rounds began;
- contributions and updates of these rounds, and of every client the newest update of a closed round, from which it
  takes up its optimizer when it comes back.

Why that is safe beside a living run: commits are only added, so what stays by a rule on an older head is more than a
newer head asks for. A retry or resume concerns the open round, whose units are computed on the version it began with
or a newer one (an older one is refused: `check_round`). A replica that works on what it read before the round's end
finds versions and contributions of the round before, too; one that slept through two closings gets StoreCorrupt or
FileNotFoundError where it would have got RoundClosed, and has not lost anything, as others closed that round. Once all
rounds of a run are over nobody writes: then the newest N versions stay, and of the rounds the newest updates.

Hand-over activations and partial sums are needed until their round is closed. Files of a committed version that no
commit names, of a process that lost the race for it, are never needed: a later commit names files of its own version,
or its parent's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ..errors import InvalidSetting, StoreCorrupt, VersionNotFound
from ..spec import RunSpec
from ..store.verbs import Create, Delete, Exists, Get, List, Put, Size
from . import keys
from .commits import Chain, Commit
from .inventory import Entry, Inventory, Mark, marked
from .runs import load_run

KEEP = 2


class RetentionStore(Put, Create, Get, Exists, Size, List, Delete, Protocol):
    """What removing needs of a store."""


@dataclass(frozen=True)
class Removal:
    """A file that is to go. `what` is its kind, or "lost race"."""

    key: str
    what: str
    size_bytes: int


@dataclass(frozen=True)
class Plan:
    """What is to be removed of one area of a run, and the mark that says so."""

    run: str
    area: str
    mark: Mark
    removals: tuple[Removal, ...]


def plan(store: RetentionStore, stock: Inventory, area: str, keep: int = KEEP) -> Plan:
    """What `stock`, listed just before, has of an area that is not needed any more. Changes nothing.

    Raises:
        InvalidSetting: when `keep` is below 2: whoever reads the version before the newest would lose it.
        StoreCorrupt: when specification or commits are not whole; then it cannot be known what is needed.
    """
    if keep < KEEP:
        raise InvalidSetting(
            f"--keep {keep} is too few: replicas may still read the version before; keep {KEEP} or more."
        )
    spec = load_run(store, stock.run)
    commits = _kept_commits(store, stock, area, spec, keep)
    if not commits:
        return Plan(stock.run, area, Mark(area), ())
    open_round = commits[0].open_round
    first_round = open_round if _is_over(spec, open_round) else max(0, open_round - keep + 1)
    versions, rounds = _versions(stock, area, commits), _rounds(stock, area, first_round, open_round)
    removals = [Removal(one.key, what, _size(store, one.key)) for one, what in (*versions, *rounds)]
    before = marked(store, stock.run, area)
    mark = Mark(area, max(before.versions, commits[-1].version), max(before.rounds, first_round))
    return Plan(stock.run, area, mark, tuple(removals))


def carry_out(store: RetentionStore, plan: Plan) -> None:
    """Remove what was planned; doing so again, or after being killed half-way, is the same."""
    if not plan.removals:
        return
    new = plan.mark.key(plan.run)
    store.create(new, plan.mark.to_bytes())
    for removal in plan.removals:
        store.delete(removal.key)
    for old in list(store.list(f"runs/{plan.run}/removed")):
        if old.startswith(f"runs/{plan.run}/removed/{plan.area}-") and _is_covered(old, plan.mark):
            store.delete(old)


def _is_covered(key: str, mark: Mark) -> bool:
    _, versions, rounds = key.rsplit("/", 1)[1].removesuffix(".json").split("-")
    return (int(versions), int(rounds)) != (mark.versions, mark.rounds) and (
        int(versions) <= mark.versions and int(rounds) <= mark.rounds
    )


def _is_over(spec: RunSpec, open_round: int) -> bool:
    return spec.run.managed and open_round >= spec.run.rounds


def _kept_commits(store: RetentionStore, stock: Inventory, area: str, spec: RunSpec, keep: int) -> list[Commit]:
    """Commits whose files stay, newest first; none while there is no version."""
    newest = _newest_listed(store, stock, area)
    if newest is None:
        return []
    chain = Chain(store, stock.run, area)
    kept: list[Commit] = []
    try:
        head = chain.head(newest)
        by_round, open_round = not _is_over(spec, head.open_round), head.open_round
        for commit in chain.back(head):
            if commit.open_round <= open_round - keep if by_round else len(kept) >= keep:
                break
            if commit.parent != (commit.version - 1 if commit.version else None):
                raise _not_whole(stock, f"'{keys.commit(stock.run, area, commit.version)}' names another parent.")
            kept.append(commit)
    except VersionNotFound as error:
        raise _not_whole(stock, str(error)) from None
    return kept


def _newest_listed(store: Exists, stock: Inventory, area: str) -> int | None:
    """The newest version, whose chain has no gap; None when there is none."""
    listed = {one.number for one in stock.of("commit", area=area)}
    for number in sorted(set(range(max(listed, default=0))) - listed):
        key = keys.commit(stock.run, area, number)
        if not store.exists(key):  # it may have been made while the store was being listed
            raise _not_whole(stock, f"'{key}' is not there, and newer commits are.")
    return max(listed, default=None)


def _not_whole(stock: Inventory, what: str) -> StoreCorrupt:
    return StoreCorrupt(f"{what} Nothing is removed of run '{stock.run}'; microsfl verify tells more.")


def _versions(stock: Inventory, area: str, kept: list[Commit]) -> Iterator[tuple[Entry, str]]:
    """Files of committed versions that no commit in `kept` names."""
    needed = {file.key for commit in kept for file in (commit.weights, commit.optimizer) if file is not None}
    first, head = kept[-1].version, kept[0].version
    for one in stock.of("weights", "optimizer", area=area):
        if one.number <= head and one.key not in needed:
            yield one, one.kind if one.number < first else "lost race"


def _rounds(stock: Inventory, area: str, first: int, open_round: int) -> Iterator[tuple[Entry, str]]:
    """What closed rounds left and nobody needs: of before the round `first`, activations and partial sums."""
    sealed = {one.number for one in stock.of("seal")}
    # A round without its seal would take a late replay for new: nothing goes there until somebody has looked at it.
    closed = [
        one
        for one in stock.of("contribution", "partial", "activations", "update", area=area)
        if one.number < open_round and one.number in sealed
    ]
    newest = _newest_updates(closed)
    for one in closed:
        if one.kind in ("partial", "activations") or (one.number < first and one.key not in newest):
            yield one, one.kind


def _newest_updates(closed: Iterable[Entry]) -> set[str]:
    updates = sorted((one for one in closed if one.kind == "update"), key=lambda one: one.number)
    return set({one.client: one.key for one in updates}.values())


def _size(store: Size, key: str) -> int:
    try:
        return store.size(key)
    except FileNotFoundError:
        return 0
