"""The gradient synchronization: contributions in, versions out.

`BodySync` holds no state that is not also in the store. Any number of them, in any processes, may work on the same
run at the same time.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ..core.reduce import BodyState, OptimizerRule, Reduction, next_state
from ..core.step import Gradients
from ..core.unit import UnitKey
from ..errors import InputError, NotFinite, StoreCorrupt
from ..store.verbs import Store
from ..wire.messages import Activations, Contribution, UnitMessage
from ..wire.tensors import check_finite, decode, encode
from . import keys
from .commits import Chain, Commit, LeftOut, Taken
from .seals import check_open, seal

Cache = MutableMapping[tuple[str, int], BodyState]


@dataclass(frozen=True)
class SyncRule:
    """When contributions become a version, and how."""

    sync: Literal["round"] | int
    reduce: str
    max_staleness: int
    unit: int
    optimizer: OptimizerRule


@dataclass(frozen=True)
class Draft:
    """What the next commit is to say about contributions."""

    head: Commit
    round: int
    closes: bool
    taken: tuple[Taken, ...]
    left_out: tuple[LeftOut, ...]


class BodySync:
    """The body of one run on a store.

    Args:
        body: the body with the run's initial weights, on the device that computes.
        cache: keeps versions by (run, version); what it drops is read again.
    """

    def __init__(self, store: Store, run: str, body: nn.Module, rule: SyncRule, cache: Cache) -> None:
        self.store = store
        self.run = run
        self.template = body
        self.rule = rule
        self.cache = cache
        self.chain = Chain(store, run, keys.BODY)
        self._own = 0  # batches that this process contributed since it listed what waits
        self._present = 0  # batches that waited then
        self._look_after = 1

    def initialize(self) -> Commit:
        """Create version 0 from the initial weights unless it exists; the version 0 that there is then."""
        weights = self.chain.write(0, "weights", encode(self.template.state_dict()))
        self.chain.create(Commit(version=0, weights=weights))
        return self.chain.get(0)

    def state(self, version: int) -> BodyState:
        """A version, from the cache or the store.

        Raises:
            VersionNotFound, StoreCorrupt.
        """
        known = self.cache.get((self.run, version))
        return known if known is not None else self._keep(version, self._load(self.chain.get(version)))

    def pick(self, version: int | None, at_least: int) -> int:
        """The version to compute with: the one that is named, else the newest, which is `at_least` or newer.

        Raises:
            VersionNotFound: when there is no such version.
        """
        if version is None:
            return self.chain.head(at_least).version
        if version > self.chain.known().version:
            self.chain.head(version)
        return version

    def contribute(
        self, message: UnitMessage, version: int, samples: int, gradients: Gradients, buffers: dict[str, Tensor]
    ) -> None:
        """Store the contribution of a unit, once: the first one counts. When this returns, it is durable.

        Raises:
            NotFinite: when the gradient overflowed; nothing is stored then.
            RoundClosed: when the round was sealed before; it does not count then.
        """
        for name, tensor in (*gradients.body.items(), *buffers.items()):
            check_finite(f"body gradient {name}", tensor)
        contribution = Contribution(
            **{name: getattr(message, name) for name in UnitMessage.model_fields},
            samples=samples,
            version=version,
            gradients=gradients.body,
            buffers=buffers,
        )
        self.store.create(keys.contribution(message.key), contribution.pack(hashed=True))
        check_open(self.store, self.run, message.round)

    def contribution(self, key: UnitKey) -> Contribution | None:
        """The stored contribution of a unit, or None while there is none."""
        try:
            return self._read(key)
        except FileNotFoundError:
            return None

    def hand_over(self, message: Activations) -> None:
        """Store the activations of a unit, for whichever replica gets the backward."""
        self.store.put(keys.activations(message.key), message.pack(hashed=True))

    def activations(self, key: UnitKey) -> Activations | None:
        """The activations of a unit that some replica handed over; None when there are none that can be used."""
        try:
            found = Activations.unpack(self.store.get(keys.activations(key)), hashed=True)
            return found if found.key == key else None
        except (FileNotFoundError, InputError):  # a torn copy is as good as none: the client sends them again
            return None

    def forget_activations(self, key: UnitKey) -> None:
        """Remove the hand-over copy; the contribution made it needless."""
        self.store.delete(keys.activations(key))

    def close(self, round_: int) -> Commit:
        """Commit what waits in the round and end it. Doing so again gives the same commit.

        Raises:
            RoundNotFound: when the round before is still open.
        """
        while True:
            closing = self.chain.closing(round_)
            if closing is not None:
                return closing
            seal(self.store, self.run, round_)
            self._commit(round_, self._waiting(round_), closes=True)
            self._forget_round(round_)

    def _forget_round(self, round_: int) -> None:
        for key in self.store.list(keys.activations_of_round(self.run, round_)):
            self.store.delete(key)

    def commit_if_due(self, round_: int, batches: int) -> None:
        """With `sync = K`, commit once K batches wait; called after each contribution, of `batches` batches.

        Listing the store each time would cost more than the commit. It is done when this process has contributed its
        share of half of what was missing at the last listing, as far as its share can be told from what came since.
        With one replica that makes O(log K) listings a commit and none late; with several, some may be late.
        """
        if self.rule.sync == "round":
            return
        self._own += batches
        if self._own < self._look_after:
            return
        waiting = self._waiting(round_)
        present = sum(self._batches(unit) for unit in waiting)
        share = self._own / max(self._own, present - self._present)
        if present >= self.rule.sync:
            self._commit(round_, waiting, closes=False)
            present = 0
        self._own, self._present = 0, present
        self._look_after = max(1, int((self.rule.sync - present) * share / 2))

    def _commit(self, round_: int, waiting: list[UnitKey], *, closes: bool) -> None:
        """Try to create the next version from `waiting`; when another process was first, nothing has changed."""
        head = self.chain.head()
        if head.open_round != round_:
            return
        settled = self.chain.settled(round_)
        reduction = Reduction(self.rule.reduce)
        taken: list[Taken] = []
        left_out: list[LeftOut] = []
        for unit in waiting:
            if (unit.client, unit.unit) in settled:
                continue
            try:
                one = self._read(unit)
            except FileNotFoundError:
                return  # another process has committed it since, and it was cleaned up: whoever closes looks again
            age = head.version - one.version
            if age > self.rule.max_staleness:
                left_out.append(_left_out(one, age, self.rule.max_staleness))
            else:
                reduction.add(one.gradients, one.buffers, batches=one.batches, samples=one.samples)
                taken.append(_taken(one))
        if taken or left_out or closes:
            draft = Draft(head, round_, closes, tuple(taken), tuple(left_out))
            self._create(draft, reduction)

    def _create(self, draft: Draft, reduction: Reduction) -> None:
        head, number = draft.head, draft.head.version + 1
        state, weights, optimizer = self.state(head.version), head.weights, head.optimizer
        if draft.taken:
            state = next_state(state, reduction, self.rule.optimizer)
            _check_converging(state, number)
            weights = self.chain.write(number, "weights", encode(state.body.state_dict()))
            optimizer = self.chain.write(number, "optimizer", encode(state.tensors, {"scalars": state.scalars}))
        commit = Commit(
            version=number,
            parent=head.version,
            round=draft.round,
            closes=draft.closes,
            weights=weights,
            optimizer=optimizer,
            contributions=draft.taken,
            left_out=draft.left_out,
        )
        if self.chain.create(commit):
            self._keep(number, state)

    def _waiting(self, round_: int) -> list[UnitKey]:
        """Units of the round whose contributions no commit lists, in sorted order."""
        settled = self.chain.settled(round_)
        units = [keys.unit_of(self.run, round_, path) for path in self.store.list(keys.gradients(self.run, round_))]
        return sorted(unit for unit in units if (unit.client, unit.unit) not in settled)

    def _batches(self, unit: UnitKey) -> int:
        return 1 if self.rule.unit == 1 else self._read(unit).batches

    def _read(self, key: UnitKey) -> Contribution:
        path = keys.contribution(key)
        content = self.store.get(path)
        try:
            contribution = Contribution.unpack(content, hashed=True)
        except InputError as error:
            raise StoreCorrupt(f"'{path}' cannot be read: {error}") from None
        if contribution.key != key:
            raise StoreCorrupt(f"'{path}' is the contribution of {contribution.key}.")
        return contribution

    def _load(self, commit: Commit) -> BodyState:
        body = copy.deepcopy(self.template)
        weights = decode(self.chain.read(commit.weights)).tensors
        try:
            body.load_state_dict(weights)
        except RuntimeError as error:
            raise StoreCorrupt(f"'{commit.weights.key}' does not fit the model: {error}") from None
        if commit.optimizer is None:
            return BodyState(body, {}, {})
        packet = decode(self.chain.read(commit.optimizer))
        return BodyState(body, packet.tensors, packet.fields["scalars"])

    def _keep(self, version: int, state: BodyState) -> BodyState:
        with contextlib.suppress(ValueError):  # larger than the whole cache
            self.cache[self.run, version] = state
        return state


def _taken(one: Contribution) -> Taken:
    return Taken(client=one.client, unit=one.unit, batches=one.batches, samples=one.samples, version=one.version)


def _left_out(one: Contribution, age: int, limit: int) -> LeftOut:
    reason = f"computed on version {one.version}, {age} commits before; max_staleness is {limit}"
    return LeftOut(client=one.client, unit=one.unit, reason=reason)


def _check_converging(state: BodyState, version: int) -> None:
    for name, tensor in state.body.state_dict().items():
        try:
            check_finite(name, tensor)
        except NotFinite:
            raise NotFinite(
                f"The body's '{name}' would not be finite in version {version}: training diverges. A smaller "
                "strategy.body_optimizer.lr may help."
            ) from None
