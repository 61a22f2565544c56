"""Events that wait together are recorded together, and each is answered as if it had come alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from microsfl.core.commands import Aggregate, Command, Reduce, Train
from microsfl.core.rounds import (
    ClientsAvailable,
    Event,
    Failed,
    ResumeRequested,
    Started,
    StopRequested,
    TaskFailed,
    Trained,
    step,
)
from microsfl.core.run_state import Phase, Status
from microsfl.errors import StoreUnavailable
from microsfl.records import Records
from microsfl.services.adoption import fresh
from microsfl.services.intake import Intake
from microsfl.services.roster import Roster
from microsfl.services.run import Run, load
from microsfl.spec import RunSpec
from tests.service.control_plane import refuse, spec

CLIENTS = tuple(f"c{number:02}" for number in range(40))
ROW = {"train_loss": 1.0, "samples": 7}


class Counted:
    """Takes the place of a method: counts its calls, and refuses those of which it is told."""

    def __init__(self, method: Any, *refused: int) -> None:
        self.method, self.refused, self.calls = method, refused, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls in self.refused:
            refuse()
        return self.method(*arguments, **named)


class World:
    """A run in its first round, with an intake whose commands are kept."""

    def __init__(self, records: Records, monkeypatch: pytest.MonkeyPatch, *refused: int) -> None:
        self.records, self.commands = records, list[Command]()
        parsed = RunSpec.parse(spec(clients=len(CLIENTS)))
        state = fresh(parsed)
        for event in (Started(), ClientsAvailable(CLIENTS)):
            state, _ = step(state, event)
        self.run = Run(parsed, 1.0, state, 1.0, rounds={0: {"round": 0, "started_at": 1.0}})
        records.add_run(self.run.record())
        self.saved = Counted(records.save_progress, *refused)
        monkeypatch.setattr(records, "save_progress", self.saved)
        self.intake = Intake(records, Roster(records, lambda: 2.0), lambda: 2.0, 0.0, self._then)

    def _then(self, run: Run, commands: Sequence[Command]) -> None:
        assert run is self.run
        self.commands += commands

    def take(self, *events: Event) -> list[bool | BaseException]:
        """All at once; each with a row of metrics if it is of a client."""

        async def all_at_once() -> list[bool | BaseException]:
            clients = [getattr(event, "client", None) for event in events]
            taken = (
                self.intake.take(self.run, event, ROW if client else None, client)
                for event, client in zip(events, clients, strict=True)
            )
            return await asyncio.gather(*taken, return_exceptions=True)

        self.run.lock = asyncio.Lock()  # the one before belongs to a loop that is over
        return asyncio.run(all_at_once())


def test_reports_that_come_at_once_are_recorded_together(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(records, monkeypatch)
    assert world.take(*(Trained(client, 0) for client in CLIENTS)) == [True] * len(CLIENTS)
    assert world.saved.calls < 4
    assert (world.run.state.phase, world.run.revision) == (Phase.SYNCING, 1 + len(CLIENTS))
    assert world.commands == [Reduce(0), Aggregate(0, CLIENTS)]
    assert [(row["client"], row["samples"]) for row in records.metrics("demo")] == [(one, 7) for one in CLIENTS]
    [record] = records.runs()
    again = load(records, record, 2.0)
    assert (again.state, again.revision, again.reports.keys()) == (
        world.run.state,
        world.run.revision,
        world.run.reports.keys(),
    )


def test_each_is_answered_for_itself(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(records, monkeypatch)
    broken = TaskFailed(None, "of no task")  # type: ignore[arg-type]
    answers = world.take(Trained("c00", 0), Trained("c00", 0), Trained("stranger", 0), broken, Trained("c01", 0))
    assert answers[:3] == [True, False, False]
    assert isinstance(answers[3], AttributeError)
    assert answers[4] is True
    assert world.run.state.trained == {"c00", "c01"}


def test_what_could_not_be_recorded_has_changed_nothing(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(records, monkeypatch, 1)
    before = world.run.state
    answers = world.take(*(Trained(client, 0) for client in CLIENTS))
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert (world.run.state, world.run.revision, records.metrics("demo")) == (before, 1, [])
    assert world.take(*(Trained(client, 0) for client in CLIENTS)) == [True] * len(CLIENTS)
    assert world.run.state.phase is Phase.SYNCING


def test_the_commands_of_all_steps_are_told(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(records, monkeypatch)
    events = (Failed("no"), ResumeRequested(fresh(world.run.spec)), ClientsAvailable(CLIENTS), StopRequested())
    assert world.take(*events) == [True] * 4
    assert world.run.state.status is Status.STOPPED
    assert world.commands == [Train(client, 0) for client in CLIENTS]
