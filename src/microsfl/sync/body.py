"""The gradient synchronization: contributions in, versions out.

`BodySync` holds no state that is not also in the store. Any number of them, in any processes, may work on the same
run at the same time.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from torch import Tensor, nn

from ..core.norms import Bound
from ..core.reduce import BodyState, StepRule
from ..core.step import Gradients
from ..core.unit import UnitKey
from ..errors import StoreCorrupt
from ..store.verbs import Store
from ..wire.messages import Contribution, UnitMessage
from ..wire.tensors import check_finite, decode, encode
from . import contributions, hand_over, keys, partials
from .commits import Chain, Commit, File, LeftOut, Taken
from .contributions import Adder, Sum
from .convergence import check_next
from .seals import check_open, seal

# (run, version), or (run, version, client) for a client's copy of a version.
StateKey = tuple[str, int] | tuple[str, int, str]
Cache = MutableMapping[StateKey, BodyState]
State = TypeVar("State", bound=BodyState)


@dataclass(frozen=True)
class SyncRule:
    """When contributions become a version, and how.

    commit_batches: once a round, or as soon as this many batches wait. turns: one client at a time trains, and each
    contribution is a commit of its own, made before it is acknowledged. max_staleness: commits between the version of a
    contribution and the one that takes it; more, and it is left out. With turns none is: nobody trains beside it, but
    clients that were taken for lost. unit: the most batches of a contribution. bound: of a gradient over its batches.
    """

    commit_batches: Literal["round"] | int
    turns: bool
    max_staleness: int
    unit: int
    step: StepRule
    bound: Bound = field(default_factory=Bound)


@dataclass(frozen=True)
class Draft:
    """What the next commit is to say about contributions. `state`: with what it took; None when it took none."""

    head: Commit
    round: int
    taken: tuple[Taken, ...]
    left_out: tuple[LeftOut, ...]
    state: BodyState | None


@dataclass(frozen=True)
class Resting(BodyState):
    """A version read to compute with. The optimizer's state, two thirds of it with Adam, waits in the store for who
    commits."""

    optimizer: File


class BodySync:
    """The body of one run on a store.

    Args:
        body: the body with the run's initial weights, on the device that computes.
        cache: keeps versions; what it drops is read again.
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
        self._waited: dict[UnitKey, int] = {}  # their units
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
        return known if known is not None else self._keep((self.run, version), self._load(self.chain.get(version)))

    def state_for(self, unit: UnitKey, version: int) -> tuple[StateKey, BodyState]:
        """What a unit is computed with, and its key in the cache, where it may or may not be. Raises as `state`."""
        return (unit.run, version), self.state(version)

    def version_for(self, unit: UnitKey, version: int | None, at_least: int) -> int:
        """The version to compute a unit with: what `pick` says.

        A unit that is done already is computed again with the version of the first time, so that it gets the same
        answer. With turns, what waits is committed first: the unit has to see it.

        Raises:
            VersionNotFound: when there is no such version.
        """
        if version is None and self.rule.turns:
            self._commit_one_by_one(unit.round)
        picked = self.pick(version, at_least)
        # Only now: with no contribution yet, the version that was picked before cannot have this very unit in it.
        done = self.contribution(unit) if version is None else None
        return picked if done is None else done.version

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
    ) -> bool:
        """Store the contribution of a unit, once: the first one counts, and is True. When this returns, it is durable.

        Raises:
            NotFinite, OverNorm: when the gradient overflowed, or is over the run's bound; nothing is stored then.
            RoundClosed: when the round was sealed before; it does not count then.
        """
        bounded, norm = self.rule.bound.applied(gradients.body, "body gradient", message.batches)
        for name, tensor in buffers.items():
            check_finite(f"body buffer {name}", tensor)
        contribution = Contribution(
            **{name: getattr(message, name) for name in UnitMessage.model_fields},
            samples=samples,
            version=version,
            norm=norm,
            gradients=bounded,
            buffers=buffers,
        )
        is_first = self.store.create(keys.contribution(message.key), contribution.pack(hashed=True))
        check_open(self.store, self.run, message.round)
        return is_first

    def contribution(self, key: UnitKey) -> Contribution | None:
        """The stored contribution of a unit, or None while there is none."""
        try:
            return contributions.read(self.store, key)
        except FileNotFoundError:
            return None

    def close(self, round_: int, parts: int = 1) -> Commit:
        """Commit what waits in the round and end it. Doing so again gives the same commit.

        Args:
            parts: in how many the contributions are added up, each but the first by another replica's `add_up`. What
                the others do not get done is done here.

        Raises:
            RoundNotFound: when the round before is still open.
        """
        while True:
            closing = self.chain.closing(round_)
            if closing is not None:
                return closing
            seal(self.store, self.run, round_)
            if self.rule.turns:
                self._commit_one_by_one(round_)
            self._commit(round_, [] if self.rule.turns else self._waiting(round_), closes=True, parts=parts)
            hand_over.forget_round(self.store, self.run, round_)
            if parts > 1:
                partials.forget_round(self.store, self.run, round_)

    def add_up(self, round_: int, part: int, parts: int) -> int:
        """Add up one of several parts of what waits in a round that is being closed, and more when that is done; how
        many sums that gave.

        Raises:
            RoundNotFound: when the round before is still open.
        """
        if self.chain.closing(round_) is not None or self.rule.turns:
            return 0
        seal(self.store, self.run, round_)  # what is added after it has no part in the sum
        try:
            units, adder = self._waiting(round_), self._adder(self.chain.head())
            return partials.leave(adder, units, part, parts, lambda: self.chain.closing(round_) is not None)
        except FileNotFoundError:  # the round was closed, and cleaned up
            return 0

    def commit_if_due(self, unit: UnitKey, batches: int) -> None:
        """Commit what is due; called after each contribution, of `batches` batches, and before its answer.

        With turns that is the contribution. With `sync = K` it is what waits, once it has K batches. Listing the store
        each time would cost more than the commit. It is done when this process has contributed its share of half of
        what was missing at the last listing, as far as its share can be told from what came since. With one replica
        that makes O(log K) listings a commit and none late; with several, some may be late.
        """
        due = self.rule.commit_batches
        if due == "round":
            return
        if self.rule.turns:
            self._commit_alone(unit)
            return
        self._own += batches
        if self._own < self._look_after:
            return
        waiting = self._waiting(unit.round)
        self._waited = {one: self._waited.get(one) or self._batches(one) for one in waiting}
        present = sum(self._waited.values())
        share = self._own / max(self._own, present - self._present)
        if present >= due:
            self._commit(unit.round, waiting, closes=False)
            present = 0
        self._own, self._present = 0, present
        self._look_after = max(1, int((due - present) * share / 2))

    def _commit_one_by_one(self, round_: int) -> None:
        """Commit what waits, in sorted order, each contribution in a commit of its own.

        Something waits only where a replica died between a contribution and its commit, and whoever sent it did not
        ask again: whatever is computed next has to see it.
        """
        for unit in self._waiting(round_):
            self._commit_alone(unit)

    def _commit_alone(self, unit: UnitKey) -> None:
        """See to it that a commit has this contribution and no other, unless the round is over."""
        tried = -1
        while (head := self.chain.head()).version > tried and head.open_round == unit.round:
            tried = head.version  # a try that does not move the chain on is of no use again
            if self._commit(unit.round, [unit], closes=False):
                return

    def _commit(self, round_: int, waiting: list[UnitKey], *, closes: bool, parts: int = 1) -> bool:
        """Try to create the next version from `waiting`, unless it is settled. False: somebody else was first, and this
        has changed nothing.
        """
        head = self.chain.head()
        if head.open_round != round_:
            return False
        settled = self.chain.settled(round_)
        units = [unit for unit in waiting if (unit.client, unit.unit) not in settled]
        if not units and not closes:
            return True
        try:
            draft = self._draft(head, round_, units, parts)
        except FileNotFoundError:
            return False  # another process has committed it since, and it was cleaned up: whoever closes looks again
        return self._create(draft, closes=closes)

    def _draft(self, head: Commit, round_: int, units: list[UnitKey], parts: int = 1) -> Draft:
        """What is to follow `head`, from these contributions.

        Raises:
            FileNotFoundError: when one of them is not there any more.
        """
        found = Sum(self.rule.step.reduction())
        for group in partials.sums(self._adder(head), units, parts):
            found.merge(group)
        state = None
        if found.taken:
            state = self.rule.step.next_state(self._whole(self.state(head.version)), found.reduction, round_)
        return Draft(head, round_, tuple(found.taken), tuple(found.left_out), state)

    def _adder(self, head: Commit) -> Adder:
        max_staleness = None if self.rule.turns else self.rule.max_staleness
        return Adder(self.store, self.rule.step, head.version, max_staleness)

    def _create(self, draft: Draft, *, closes: bool) -> bool:
        head, number, state = draft.head, draft.head.version + 1, draft.state
        weights, optimizer = head.weights, head.optimizer
        if state is not None:
            check_converging(state, number)
            weights = self.chain.write(number, "weights", encode(state.body.state_dict()))
            optimizer = self._write_optimizer(number, state)
        commit = Commit(
            version=number,
            parent=head.version,
            round=draft.round,
            closes=closes,
            weights=weights,
            optimizer=optimizer,
            contributions=draft.taken,
            left_out=draft.left_out,
        )
        won = self.chain.create(commit)
        if won:
            self._keep((self.run, number), state if state is not None else self.state(head.version))
        return won

    def _write_optimizer(self, number: int, state: BodyState) -> File | None:
        return self.chain.write(number, "optimizer", encode(state.tensors, {"scalars": state.scalars}))

    def _waiting(self, round_: int) -> list[UnitKey]:
        """Units of the round whose contributions no commit lists, in sorted order."""
        settled = self.chain.settled(round_)
        listed = (keys.unit_of(path) for path in self.store.list(keys.gradients(self.run, round_)))
        return [
            UnitKey(self.run, round_, *place) for place in sorted(place for place in listed if place not in settled)
        ]

    def _batches(self, unit: UnitKey) -> int:
        return 1 if self.rule.unit == 1 else contributions.read(self.store, unit).batches

    def _load(self, commit: Commit) -> BodyState:
        body = copy.deepcopy(self.template)
        weights = decode(self.chain.read(commit.weights)).tensors
        try:
            body.load_state_dict(weights)
        except RuntimeError as error:
            raise StoreCorrupt(f"'{commit.weights.key}' does not fit the model: {error}") from None
        return BodyState(body, {}, {}) if commit.optimizer is None else Resting(body, {}, {}, commit.optimizer)

    def _whole(self, state: BodyState) -> BodyState:
        """The version with its optimizer's state."""
        if not isinstance(state, Resting):
            return state
        packet = decode(self.chain.read(state.optimizer))
        return BodyState(state.body, packet.tensors, packet.fields["scalars"])

    def _keep(self, key: StateKey, state: State) -> State:
        with contextlib.suppress(ValueError):  # larger than the whole cache
            self.cache[key] = state
        return state


def check_converging(state: BodyState, version: int) -> None:
    """Raises NotFinite when a version that is to be has a value that is not finite."""
    check_next("body's", state.body.state_dict().items(), version, "strategy.body_optimizer.lr")
