"""Events of runs on their way into the records: in order, and together when several wait."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from ..core import rounds
from ..core.commands import Command
from ..core.rounds import Event
from ..core.run_state import to_json
from ..records import Records, Row
from .insist import insist
from .patience import absences
from .roster import Roster
from .run import Run, Step, plan, take
from .trail import COORDINATOR, Origin, Told, entries_of

Key = TypeVar("Key", bound=Hashable)


@dataclass
class News:
    """An event with the columns that it brought and, if it is a client's, whose; see `run.plan`.

    origin: who brought it. changed: whether it changed anything, once that is recorded.
    """

    event: Event
    brought: Row
    client: str | None
    origin: Origin
    changed: asyncio.Future[bool]


@dataclass
class Steps:
    """Consecutive steps of a run, recorded in one transaction; `draft` is the run as it is after them."""

    draft: Run
    made: list[Step] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)

    def add(self, step: Step, commands: Sequence[Command], told: Told) -> None:
        self.made.append(step)
        self.told.append(told)
        self.commands += commands
        take(self.draft, step)

    def save(self, records: Records) -> None:
        """Raises StoreUnavailable."""
        about: dict[int, Row] = {}
        metrics: dict[tuple[int, str], Row] = {}
        for step in self.made:
            _merge(about, step.rounds)
            _merge(metrics, step.metrics)
        run = self.draft
        records.save_progress(
            run.name,
            to_json(run.state),
            run.revision,
            ended_at=run.ended_at,
            rounds=about,
            metrics=metrics,
            entries=entries_of(run.name, self.told, self.made),
        )


class Intake:
    """Takes events one after another for each run, under the run's lock.

    What comes while a transaction is under way is recorded by the next one, all of it: a thousand reports at once write
    the state a few times, not a thousand times.

    Args:
        then: called with the run and the commands of the steps, when they are recorded and the run has taken them.
    """

    def __init__(
        self,
        records: Records,
        roster: Roster,
        clock: Callable[[], float],
        patience_s: float,
        then: Callable[[Run, Sequence[Command]], None],
    ) -> None:
        self._records, self._roster, self._clock = records, roster, clock
        self._patience_s, self._then = patience_s, then
        self._waiting: defaultdict[str, list[News]] = defaultdict(list)
        self._takers: dict[str, asyncio.Task[None]] = {}

    async def take(
        self,
        run: Run,
        event: Event,
        brought: Row | None = None,
        client: str | None = None,
        origin: Origin = COORDINATOR,
    ) -> bool:
        """Take `event` with the columns it `brought`; False when it changes nothing.

        Raises:
            StoreUnavailable: when the records could not be written for `patience_s`; then nothing has changed either.
        """
        loop = asyncio.get_running_loop()
        news = News(event, brought or {}, client, origin, loop.create_future())
        self._waiting[run.name].append(news)
        taker = self._takers.get(run.name)
        if taker is None or taker.done():
            self._takers[run.name] = loop.create_task(self._take_all(run))
        return await news.changed

    async def _take_all(self, run: Run) -> None:
        async with run.lock:
            while news := self._waiting.pop(run.name, None):
                try:
                    await self._take(run, news)
                except Exception as error:  # noqa: BLE001  (raised to all whose news this was)
                    for one in news:
                        if not one.changed.done():
                            one.changed.set_exception(error)

    async def _take(self, run: Run, news: Sequence[News]) -> None:
        steps = Steps(run.draft())
        changed = [self._add(steps, one) for one in news]
        if steps.made:
            await insist(partial(steps.save, self._records), self._patience_s, self._records.count_retry)
            for step in steps.made:
                take(run, step)
            self._then(run, steps.commands)
        for one, has_changed in zip(news, changed, strict=True):
            if not one.changed.done():
                one.changed.set_result(has_changed)

    def _add(self, steps: Steps, news: News) -> bool:
        """Whether the event changes anything. What is wrong about one concerns none of the others."""
        run = steps.draft
        try:
            state, commands = rounds.step(run.state, news.event)
            if state == run.state:
                return False
            now = self._clock()
            without = absences(run, self._roster, news.event, state, now)
            steps.add(plan(run, state, now, news.brought, news.client, without), commands, (news.event, news.origin))
        except Exception as error:  # noqa: BLE001  (raised to whose news this was)
            if not news.changed.done():
                news.changed.set_exception(error)
            return False
        return True


def _merge(rows: dict[Key, Row], more: Mapping[Key, Row]) -> None:
    for key, row in more.items():
        rows[key] = {**rows.get(key, {}), **row}
