"""The body of SplitFed v1: each client has its own copy within a round, and the copies are averaged at its end.

A copy is no file. It is the round's version, stepped once on each contribution of its client, in order; as every
contribution is in the store before its answer, any replica can make any copy again (docs/decisions/0007). Those in the
cache only spare the work.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from ..core.average import WeightedMean
from ..core.reduce import BodyState
from ..core.unit import UnitKey
from ..errors import UnitMissing, VersionNotFound
from ..wire.messages import Contribution
from .body import BodySync, Draft, StateKey, check_converging
from .commits import Commit, File, LeftOut, Taken
from .contributions import as_taken, read


@dataclass(frozen=True)
class Copy(BodyState):
    """A client's copy as it is before its unit `unit` of the round."""

    unit: int = 0


class BodyCopies(BodySync):
    """The body of a run whose clients have a copy each; its commits are one a round, without an optimizer state.

    The copies' optimizers begin anew with each round.
    """

    def version_for(self, unit: UnitKey, version: int | None, at_least: int) -> int:
        """The version that the unit's round began with: all of the round is computed on it.

        Raises:
            VersionNotFound: when another one is asked for.
            RoundClosed, RoundNotFound: when the round is not open.
        """
        self.pick(version, at_least)
        self.chain.check_round(unit.round)
        base = self.chain.known().version
        if version not in (None, base):
            raise VersionNotFound(f"Round {unit.round} of run '{self.run}' computes on version {base}, not {version}.")
        return base

    def state_for(self, unit: UnitKey, version: int) -> tuple[StateKey, BodyState]:
        """The client's copy as it is before the unit; before the first one, the version itself.

        Raises:
            UnitMissing: when the units before it are not all there.
            VersionNotFound: when `version` is not the one that the round began with.
            NotFinite: when the copy diverged.
        """
        self.version_for(unit, version, 0)
        if not unit.unit:
            return (self.run, version), self.state(version)
        key = (self.run, version, unit.client)
        known = self.cache.get(key)
        before = known if isinstance(known, Copy) and known.unit <= unit.unit else self._begin(version)
        while before.unit < unit.unit:
            before = self._stepped(before, self._next(before, unit, version))
        if before.unit != unit.unit:
            raise UnitMissing(f"{_name(unit)} begins within a unit that has been computed; the next is {before.unit}.")
        return key, before if before is known else self._keep(key, before)

    def _begin(self, version: int) -> Copy:
        return Copy(self.state(version).body, {}, {})

    def _next(self, before: Copy, wanted: UnitKey, version: int) -> Contribution:
        """The contribution that steps `before` on the way to the unit `wanted`."""
        one = self.contribution(UnitKey(self.run, wanted.round, wanted.client, before.unit))
        if one is None or one.version != version:
            raise UnitMissing(f"{_name(wanted)} was sent, and unit {before.unit} before it has no contribution.")
        return one

    def _stepped(self, before: Copy, one: Contribution) -> Copy:
        """The copy after one more contribution; `before` is left as it was."""
        reduction = self.rule.step.reduction()
        reduction.add(one.gradients, one.buffers, batches=one.batches, samples=one.samples)
        after = self.rule.step.next_state(before, reduction, one.round)
        check_converging(after, one.version + 1)
        return Copy(**vars(after), unit=one.unit + one.batches)

    def add_up(self, round_: int, part: int, parts: int) -> int:  # noqa: ARG002
        """0: the copies are stepped by one contribution after the other."""
        return 0

    def _draft(self, head: Commit, round_: int, units: list[UnitKey], parts: int = 1) -> Draft:  # noqa: ARG002
        """The copies' average, weighted by the samples of their contributions; one copy at a time is in memory."""
        mean = WeightedMean()
        taken: list[Taken] = []
        left_out: list[LeftOut] = []
        for _, of_client in groupby(sorted(units), key=lambda unit: unit.client):
            last, kept, dropped = self._folded(head.version, of_client)
            taken += kept
            left_out += dropped
            if kept:
                mean.add(last.body.state_dict(), float(sum(one.samples for one in kept)))
        state = self._averaged(mean) if taken else None
        return Draft(head, round_, tuple(taken), tuple(left_out), state)

    def _folded(self, version: int, units: Iterable[UnitKey]) -> tuple[Copy, list[Taken], list[LeftOut]]:
        """A client's copy after all of its contributions that follow on each other from its first unit on."""
        last, taken, left_out = self._begin(version), list[Taken](), list[LeftOut]()
        for unit in units:
            one = read(self.store, unit)
            if (one.unit, one.version) == (last.unit, version):
                last = self._stepped(last, one)
                taken.append(as_taken(one))
            else:
                reason = (
                    f"the copy of version {version} had unit {last.unit} next; this one is of version {one.version}"
                )
                left_out.append(LeftOut(client=one.client, unit=one.unit, reason=reason))
        return last, taken, left_out

    def _averaged(self, mean: WeightedMean) -> BodyState:
        body = copy.deepcopy(self.template)
        body.load_state_dict(mean.result())
        return BodyState(body, {}, {})

    def _write_optimizer(self, number: int, state: BodyState) -> File | None:
        """None: the copies' optimizers end with the round."""


def _name(unit: UnitKey) -> str:
    return f"Unit {unit.unit} of client '{unit.client}' in round {unit.round}"
