"""What clients sent in the rounds of one area, held against the commits that list it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...core.unit import UnitKey
from ...errors import InputError
from ...wire.messages import Activations, Contribution, Update
from .. import keys
from ..commits import Commit, LeftOut, Taken
from ..inventory import Entry, is_id
from .chain import RESTORE, ChainCheck
from .findings import Finding, read

UNUSED = "the commits are right without it; remove it, or restore it from a backup"


@dataclass(frozen=True)
class Sent:
    """What a contribution or an update says about itself; an update has no version, and counts as one batch."""

    key: UnitKey
    batches: int = 1
    samples: int = 0
    version: int | None = None
    norm: float = 0.0


class RoundsCheck:
    """The rounds of the area that `chain` has read."""

    def __init__(self, chain: ChainCheck) -> None:
        self.chain = chain
        self.store, self.stock, self.area = chain.store, chain.stock, chain.area
        self.open_round = chain.head.open_round if chain.head else 0
        self.listed: dict[UnitKey, list[tuple[int, Taken | LeftOut]]] = {}
        for version, commit in chain.commits.items():
            settled: tuple[Taken | LeftOut, ...] = (*commit.contributions, *commit.left_out)
            for one in settled:
                self.listed.setdefault(self._unit(commit, one), []).append((version, one))

    def findings(self) -> Iterator[Finding]:
        yield from self._listed_twice()
        present = set()
        for entry in self.stock.of("contribution", "update", area=self.area):
            content = read(self.store, entry.key)
            if content is not None:
                present.add(self._key(entry))
                yield from self._sent(entry, content)
        yield from self._gone(present)
        yield from self._activations()
        yield from self._seals()

    def _unit(self, commit: Commit, one: Taken | LeftOut) -> UnitKey:
        return UnitKey(self.stock.run, commit.round, one.client, one.unit)

    def _key(self, entry: Entry) -> UnitKey:
        return UnitKey(self.stock.run, entry.number, entry.client, entry.unit)

    def _file(self, key: UnitKey) -> str:
        return keys.contribution(key) if self.area == keys.BODY else keys.update(key.run, key.round, key.client)

    def _listed_twice(self) -> Iterator[Finding]:
        for key, places in self.listed.items():
            for version, _ in places[1:]:
                yield self.chain.error(
                    keys.commit(self.stock.run, self.area, version),
                    f"'{self._file(key)}' in one commit",
                    f"it is in those of versions {places[0][0]} and {version}",
                    f"It counted twice: the weights since version {version} are not what was trained. {RESTORE}",
                )

    def _sent(self, entry: Entry, content: bytes) -> Iterator[Finding]:
        expected = self._key(entry)
        try:
            sent = _read_sent(entry, content)
        except InputError as error:
            yield self._damaged(entry, "a message that can be read", f"{len(content)} bytes: {error}")
            return
        if sent.key != expected:
            yield self._damaged(entry, _name(expected), _name(sent.key))
            return
        head = self.chain.head
        newest = head.version if head else -1
        if sent.version is not None and sent.version > newest and not self.chain.has(sent.version):
            yield self._damaged(entry, f"a version up to {newest}", f"version {sent.version}")
        places = self.listed.get(expected, [])
        for version, one in places:
            if isinstance(one, Taken):
                yield from self._as_taken(entry, sent, version, one)
        if not places:
            yield from self._unlisted(entry)

    def _damaged(self, entry: Entry, expected: str, found: str) -> Finding:
        meaning = f"It is damaged or another's; {UNUSED}."
        if not self.listed.get(self._key(entry)) and entry.number >= self.open_round:
            meaning = (
                "It is damaged or another's, and the open round waits for it: remove it, and its client sends it again."
            )
        return self.chain.error(entry.key, expected, found, meaning)

    def _as_taken(self, entry: Entry, sent: Sent, version: int, one: Taken) -> Iterator[Finding]:
        said = (one.batches, one.samples, one.version if sent.version is not None else None, one.norm)
        if said != (sent.batches, sent.samples, sent.version, sent.norm):
            commit = keys.commit(self.stock.run, self.area, version)
            yield self.chain.error(
                entry.key,
                f"{_counts(one)}, as '{commit}' says",
                _counts(sent),
                f"One of the two files was edited. {RESTORE}",
            )

    def _unlisted(self, entry: Entry) -> Iterator[Finding]:
        if entry.number < self.open_round and self.chain.is_whole:
            yield self.chain.note(
                entry.key,
                "a commit that lists it",
                "none",
                "It came after its round was sealed and was never acknowledged. Harmless; microsfl gc removes it.",
            )
        elif entry.number > self.open_round:
            yield self.chain.note(
                entry.key,
                f"rounds up to {self.open_round}",
                f"round {entry.number}",
                "Its round has not begun; it counts when it does. Remove it if no client of this run can have sent it.",
            )

    def _gone(self, present: set[UnitKey]) -> Iterator[Finding]:
        for key, places in self.listed.items():
            commit = keys.commit(self.stock.run, self.area, places[0][0])
            if not is_id(key.client):
                yield self.chain.error(commit, "ids of clients", f"'{key.client}'", f"It was edited. {RESTORE}")
                continue
            if key in present or self.chain.removed(round_=key.round) or self.store.exists(self._file(key)):
                continue
            yield self.chain.error(
                self._file(key),
                f"a file, as '{commit}' lists it",
                "no file",
                "microsfl gc did not remove it: find out what removes files from this store. The weights have it in "
                "them already, so training goes on.",
            )

    def _activations(self) -> Iterator[Finding]:
        for entry in self.stock.of("activations", "partial", area=self.area):
            what = "hand-over copy" if entry.kind == "activations" else "partial sum"
            if entry.number < self.open_round:
                harmless = f"A {what} of a closed round. Harmless; microsfl gc removes it."
                yield self.chain.note(entry.key, "no file", "a file", harmless)
                continue
            if entry.kind == "partial":
                continue  # who closes the round reads it with its hash, or does without
            content = read(self.store, entry.key)
            if content is not None:
                yield from self._hand_over(entry, content)

    def _hand_over(self, entry: Entry, content: bytes) -> Iterator[Finding]:
        again = "Remove it: the client sends its activations again."
        try:
            key = Activations.unpack(content, hashed=True).key
        except InputError as error:
            found = f"{len(content)} bytes: {error}"
            yield self.chain.error(entry.key, "a message that can be read", found, f"It is damaged. {again}")
            return
        if key != self._key(entry):
            yield self.chain.error(entry.key, _name(self._key(entry)), _name(key), f"It is another unit's. {again}")

    def _seals(self) -> Iterator[Finding]:
        sealed = {entry.number: entry for entry in self.stock.of("seal")}
        for entry in sealed.values():
            content = read(self.store, entry.key)
            if content not in (None, b"{}"):
                yield self.chain.error(
                    entry.key,
                    "{}",
                    f"{len(content or b'')} other bytes",
                    "It was edited; that it exists is what counts.",
                )
            newest = self.chain.head.version if self.chain.head else -1
            if entry.number > self.open_round and not self.chain.has(newest + 1):
                yield self.chain.error(
                    entry.key,
                    f"rounds up to {self.open_round} sealed",
                    f"round {entry.number} sealed",
                    "That round would take no contribution. Remove the file, unless newer commits are missing here.",
                )
            elif entry.number == self.open_round:
                yield self.chain.note(
                    entry.key, "an open round", "its seal", "The round is being closed, or is when the run goes on."
                )
        for round_ in range(self.open_round):
            key = keys.seal(self.stock.run, round_)
            if round_ not in sealed and not self.store.exists(key):
                yield self.chain.error(
                    key,
                    "a seal, as the round is closed",
                    "no file",
                    "A late request might be acknowledged and not count; write {} into it again.",
                )


def _read_sent(entry: Entry, content: bytes) -> Sent:
    if entry.kind == "update":
        update = Update.unpack(content, hashed=True)
        return Sent(UnitKey(update.run, update.round, update.client, 0), samples=update.samples, norm=update.norm)
    one = Contribution.unpack(content, hashed=True)
    return Sent(one.key, one.batches, one.samples, one.version, one.norm)


def _counts(one: Taken | Sent) -> str:
    return f"{one.batches} batches, {one.samples} samples, version {one.version}, norm {one.norm:g}"


def _name(key: UnitKey) -> str:
    return f"run {key.run}, round {key.round}, client {key.client}, unit {key.unit}"
