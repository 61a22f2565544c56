"""The commits of one area and the files that they name."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pydantic

from .. import keys
from ..commits import Commit, File
from ..inventory import Entry, Inventory, classify, marked
from .findings import Finding, VerifyStore, read, sha256

RESTORE = "Restore it from a backup; without one, the run cannot go on from here and has to start again."


class ChainCheck:
    """One area of one run. `commits` has those that could be read, once `findings` was exhausted."""

    def __init__(self, store: VerifyStore, stock: Inventory, area: str) -> None:
        self.store = store
        self.stock = stock
        self.area = area
        self.mark = marked(store, stock.run, area)
        self.commits: dict[int, Commit] = {}
        self._found: dict[str, tuple[str, int]] = {}

    @property
    def head(self) -> Commit | None:
        return self.commits[max(self.commits)] if self.commits else None

    @property
    def is_whole(self) -> bool:
        """Every version up to the newest has a commit that can be read."""
        listed = {one.number for one in self.stock.of("commit", area=self.area)}
        return bool(listed) and self.commits.keys() == set(range(max(listed) + 1))

    def findings(self) -> Iterator[Finding]:
        yield from self._commits()
        yield from self._links()
        yield from self._contents()
        yield from self._named()

    def removed(self, *, version: int = -1, round_: int = -1) -> bool:
        """Whether gc may have removed files of that version or round; it may be at work while this looks."""

        def covers() -> bool:
            return 0 <= version < self.mark.versions or 0 <= round_ < self.mark.rounds

        if not covers():
            self.mark = marked(self.store, self.stock.run, self.area)
        return covers()

    def has(self, version: int) -> bool:
        """Whether a version exists by now: a living run goes on after it was listed."""
        return self.store.exists(keys.commit(self.stock.run, self.area, version))

    def error(self, file: str, expected: str, found: str, meaning: str) -> Finding:
        return Finding("error", self.stock.run, file, expected, found, meaning)

    def note(self, file: str, expected: str, found: str, meaning: str) -> Finding:
        return Finding("note", self.stock.run, file, expected, found, meaning)

    def _commits(self) -> Iterator[Finding]:
        listed = {one.number: one for one in self.stock.of("commit", area=self.area)}
        for number in range(max(listed, default=-1) + 1):
            key = keys.commit(self.stock.run, self.area, number)
            content = read(self.store, key)
            if content is None:
                newest = max(listed)
                yield self.error(
                    key,
                    f"a commit, as there are newer ones up to version {newest}",
                    "no file",
                    f"The chain has a gap: servers take the version before it for the newest. {RESTORE}",
                )
            else:
                yield from self._commit(key, number, content)

    def _commit(self, key: str, number: int, content: bytes) -> Iterator[Finding]:
        try:
            commit = Commit.model_validate_json(content)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            yield self.error(
                key, "a commit of format 1", f"{place or 'content'}: {first['msg']}", f"It is damaged. {RESTORE}"
            )
            return
        self.commits[number] = commit
        if commit.version != number:
            yield self.error(
                key, f"version {number}", f"version {commit.version}", f"It is another version's commit. {RESTORE}"
            )
        elif commit.model_dump_json(indent=1, exclude_unset=True).encode() != content:
            yield self.error(key, "JSON as microsfl writes it", "other spelling", f"It was edited. {RESTORE}")

    def _links(self) -> Iterator[Finding]:
        for number, commit in self.commits.items():
            key = keys.commit(self.stock.run, self.area, number)
            parent = number - 1 if number else None
            if commit.parent != parent:
                yield self.error(
                    key, f"parent {parent}", f"parent {commit.parent}", f"It was edited, or is another run's. {RESTORE}"
                )
            before = self.commits.get(number - 1)
            expected = before.open_round if before else (0 if number == 0 else commit.round)
            if commit.round != expected:
                yield self.error(
                    key,
                    f"round {expected}, which the commit before left open",
                    f"round {commit.round}",
                    f"It was edited, or it was not microsfl that made it. {RESTORE}",
                )

    def _contents(self) -> Iterator[Finding]:
        """Each file's content against its name; each is read once, one at a time."""
        named = {file.key for commit in self.commits.values() for file in _files(commit)}
        for one in self.stock.of("weights", "optimizer", area=self.area):
            content = read(self.store, one.key)
            if content is None:
                continue
            self._found[one.key] = sha256(content), len(content)
            if self._found[one.key][0] != one.sha256:
                yield self.error(
                    one.key,
                    f"sha256 {one.sha256}, as its name says",
                    f"sha256 {self._found[one.key][0]}, {len(content)} bytes",
                    f"It is damaged: servers refuse to compute with it. {RESTORE}"
                    if one.key in named
                    else "It is damaged, and no commit names it. Remove it, so that a later commit does not meet it.",
                )
            elif one.key not in named:
                yield from self._unnamed(one)

    def _unnamed(self, one: Entry) -> Iterator[Finding]:
        head = self.head
        if head is None or one.number > head.version:
            meaning = "It belongs to a commit that is being made, or whose maker ended before. Harmless; leave it."
        elif one.number in self.commits:
            meaning = "Its writer lost the race for this version. Harmless; microsfl gc removes it."
        else:
            return  # the commit that may name it cannot be read, which is a finding already
        yield self.note(one.key, "a commit that names it", "none", meaning)

    def _named(self) -> Iterator[Finding]:
        missing: set[str] = set()
        for number, commit in self.commits.items():
            for file in _files(commit):
                if not self._is_own(number, file):
                    key, own = keys.commit(self.stock.run, self.area, number), "files of its own run and area"
                    yield self.error(key, own, f"'{file.key}'", f"It was edited, or is another run's. {RESTORE}")
                elif file.key in self._found:
                    yield from self._as_named(number, file)
                elif file.key not in missing and not self._was_removed(number, file):
                    missing.add(file.key)
                    yield self._missing(number, file)

    def _is_own(self, number: int, file: File) -> bool:
        entry = classify(self.stock.run, file.key)
        return entry.kind in ("weights", "optimizer") and entry.area == self.area and entry.number <= number

    def _was_removed(self, number: int, file: File) -> bool:
        return self.store.exists(file.key) or self.removed(version=number)

    def _as_named(self, number: int, file: File) -> Iterator[Finding]:
        """A commit's words against a file whose own name is right or has been complained about."""
        digest, size = self._found[file.key]
        expected, found = f"sha256 {file.sha256}, {file.size_bytes} bytes", f"sha256 {digest}, {size} bytes"
        if expected != found and digest in file.key:
            key = keys.commit(self.stock.run, self.area, number)
            yield self.error(
                key, f"{found}, as '{file.key}' has", expected, f"The commit was edited, not the file. {RESTORE}"
            )

    def _missing(self, number: int, file: File) -> Finding:
        key = keys.commit(self.stock.run, self.area, number)
        return self.error(
            file.key,
            f"sha256 {file.sha256}, {file.size_bytes} bytes, as '{key}' says",
            "no file",
            f"Version {number} cannot be computed with, and microsfl gc did not remove it. {RESTORE}",
        )


def _files(commit: Commit) -> list[File]:
    return [file for file in (commit.weights, commit.optimizer) if file is not None]


def is_canonical(content: bytes) -> bool:
    """JSON with sorted keys, spelled as specifications are."""
    return json.dumps(json.loads(content), sort_keys=True).encode() == content
