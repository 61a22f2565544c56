"""The live runs: each event of a run goes through the state machine, into the records, and only then takes effect.

One run's events are taken one after another (`intake.py`). What a state leaves to be done (`commands.pending`) is
either fetched by the clients (training, evaluation) or carried out here by a background task (reduce, aggregate).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial

from ..core import rounds
from ..core.commands import Aggregate, Command, Evaluate, Reduce, Task, Train, pending, task_of
from ..core.rounds import Event
from ..core.run_state import Status
from ..errors import ClientNotFound, MicrosflError, OperationError, RunExists, RunNotActive, RunNotFound
from ..process import event as log_event
from ..process import log
from ..records import Entry, Records, Row
from ..spec import RunSpec
from .adoption import check_resolved, go_on, prepare
from .bells import ANY_RUN, Bells, client_topic, run_topic
from .data_plane import DataPlane, aggregated_row, reduced_row
from .insist import PATIENCE_S, insist
from .intake import Intake
from .need import Wishes
from .patience import due
from .roster import FED_SERVER, SPLIT_SERVER, Roster
from .run import Run, load
from .trail import Origin, committed, created

PATROL_EVERY_S = 0.25
# How long a poll or a registration waits for what it changes; with the database away, it is answered all the same.
BRIEFLY_S = 1.0


class Director:
    """Holds the runs, hands out tasks, and drives the data plane. Its coroutines belong to one event loop.

    `changes` counts what happened to any run; `bells` ring then. `invited`: whether a client may take part in a run.
    `patience_s` is how long it goes on trying to write to a database that is away.

    Raises, when it is made:
        StoreCorrupt, StoreUnavailable: when the records cannot be read.
    """

    def __init__(
        self, records: Records, clock: Callable[[], float], data_plane: DataPlane, patience_s: float = PATIENCE_S
    ) -> None:
        self.roster, self.wishes = Roster(records, clock), Wishes(clock)
        self._records, self._clock, self._data_plane, self._patience_s = records, clock, data_plane, patience_s
        self._intake = Intake(records, self.roster, clock, patience_s, self._go_on)
        self._runs = {record.name: load(records, record, clock()) for record in records.runs()}
        self.bells, self.changes = Bells(), 0
        self.invited: Callable[[str, str], bool] = lambda _client, _run: True
        self._creating = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()

    # The process

    def begin(self) -> None:
        """Go on with whatever is pending; call it on the event loop."""
        for run in self.runs():
            self._carry_out(run, pending(run.state))
        self._spawn(self.roster.keep())
        self._spawn(self._patrol())

    def stop(self) -> None:
        """Answer every long poll, now and from now on at once."""
        self.bells.close()

    async def close(self) -> None:
        """End the background work; what it was about stays pending in the records."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.roster.try_to_flush()

    # Runs

    def runs(self) -> list[Run]:
        """All, oldest first."""
        return list(self._runs.values())

    def run(self, name: str) -> Run:
        """The run of this name.

        Raises:
            RunNotFound: when there is none.
        """
        if name not in self._runs:
            raise RunNotFound(f"There is no run '{name}'.")
        return self._runs[name]

    async def create(self, spec: RunSpec, by: str) -> tuple[Run, bool]:
        """The run of this specification, and whether it is new; a new one is prepared on the data plane first.

        by: the identity that asks, here and below.

        Raises:
            InvalidSetting: when a value that decides the result is still "auto".
            RunExists: when there is a run of this name with another specification.
            Unreachable: when there is no split server or no fed server that it needs, or none answers.
            StoreCorrupt: when the areas of the store do not belong together.
            MicrosflError: whatever the data plane has against the specification.
        """
        check_resolved(spec)
        async with self._creating:
            existing = self._runs.get(spec.run.name)
            if existing is not None:
                if existing.spec.decisive != spec.decisive:
                    raise RunExists(f"There is a run '{existing.name}' with another specification.")
                return existing, False
            with self.wishes.wish(spec):
                state = await prepare(self._data_plane, self.roster, spec)
            now = self._clock()
            run = Run(spec, now, state, now)
            await insist(partial(self._add, run, by), self._patience_s, self._records.count_retry)
            self._runs[run.name] = run
        self._tell(run, ())
        log_event("run created", run=run.name, round=state.round, begins=state.begins)
        return run, True

    async def watch(self, name: str, after: int, wait_s: float) -> Run:
        """The run, as soon as its revision is above `after`, or after `wait_s` seconds. Raises RunNotFound."""
        run = self.run(name)
        if run.revision <= after:
            await self.bells.wait([run_topic(run.name)], wait_s)
        return run

    async def start(self, name: str, by: str) -> Run:
        """Let the run begin as soon as it has its clients; of no effect on one that was started before.

        Raises RunNotFound.
        """
        run = self.run(name)
        await self._intake.take(run, rounds.Started(), origin=Origin(by))
        await self.offer_clients()
        return run

    async def stop_run(self, name: str, by: str) -> Run:
        """End the run; of no effect on one that has ended. Raises RunNotFound."""
        run = self.run(name)
        await self._intake.take(run, rounds.StopRequested(), origin=Origin(by))
        return run

    async def resume_run(self, name: str, by: str) -> Run:
        """Go on, from where the store stands, with a run that failed or was stopped; of no effect on one that goes on.

        Raises:
            RunNotFound
            RunNotActive: when the run is finished.
            MicrosflError: whatever stands in the way of creating a run.
        """
        run = self.run(name)
        if run.state.status is Status.FINISHED:
            raise RunNotActive(f"Run '{name}' is finished; there is nothing to resume.")
        if run.state.ended:
            with self.wishes.wish(run.spec):
                state = go_on(await prepare(self._data_plane, self.roster, run.spec), run.rounds)
            await self._intake.take(run, rounds.ResumeRequested(state), origin=Origin(by))
            async with run.lock:
                rows = await asyncio.to_thread(self._records.metrics, name, run.state.round)
                run.reports = {row["client"]: row for row in rows}
            await self.offer_clients()
        return run

    async def keep_class_counts(self, name: str, counts: list[list[int]]) -> None:
        """Keep how a run's data is divided."""
        await asyncio.to_thread(self._records.save_class_counts, self.run(name).name, counts)
        self.run(name).class_counts = counts

    async def metrics(self, name: str) -> list[Row]:
        """The run's metrics, a row for each round and client. Raises RunNotFound."""
        return await asyncio.to_thread(self._records.metrics, self.run(name).name)

    async def metrics_between(self, name: str, first: int, end: int) -> list[Row]:
        """Those of the rounds from `first` to the one before `end`."""
        return await asyncio.to_thread(self._records.metrics_between, name, first, end)

    # Clients

    async def offer_clients(self) -> None:
        """Let the waiting runs begin that have enough clients by now."""
        # A run that is locked may be waiting for the database; the patrol offers the clients again when it is unlocked.
        waiting = [run for run in self._runs.values() if run.state.status is Status.WAITING and not run.lock.locked()]
        able = [run for run in waiting if self.roster.has_clients(run.state.needed)]
        there = self.roster.clients()
        await self._briefly((run, rounds.ClientsAvailable(self._invited(there, run))) for run in able)

    def _invited(self, clients: Sequence[str], run: Run) -> tuple[str, ...]:
        return tuple(client for client in clients if self.invited(client, run.name))

    async def _welcome(self, clients: Sequence[str]) -> None:
        """Who asks for work is waited for again."""
        await self._briefly(
            (run, rounds.ClientBack(client)) for run in self.runs() for client in clients if client in run.state.away
        )

    async def poll(
        self, clients: Sequence[str], wait_s: float, in_hand: Sequence[tuple[str, Task]] = ()
    ) -> list[tuple[Run, Task]]:
        """The open tasks of these clients, as soon as there is one; or none, after `wait_s` seconds.

        in_hand: tasks, with the names of their runs, that some of them are at: these get others once they reported.

        Raises:
            ClientNotFound: for clients that never registered.
        """
        self.roster.heard_of(clients)
        at_it = {task.client for _, task in in_hand}
        await self._welcome([client for client in clients if client not in at_it])
        await self.offer_clients()
        until = time.monotonic() + wait_s
        while not (tasks := self._tasks(clients, in_hand)):
            if not await self.bells.wait(map(client_topic, clients), until - time.monotonic()):
                return self._tasks(clients, in_hand)
        return tasks

    async def report(self, name: str, client: str, event: Event, metrics: Row, by: str) -> bool:
        """Take what a client has to say about its task; False when it is not that client's turn, or no longer.

        Raises:
            RunNotFound, ClientNotFound: when there is no such run, or it has no such client.
        """
        run = self.run(name)
        if run.state.clients and client not in run.state.clients:
            raise ClientNotFound(f"Run '{name}' has no client '{client}'.")
        with suppress(ClientNotFound):  # with an empty database, a report may come before the registration
            self.roster.heard_of([client])
        accepted = await self._intake.take(run, event, metrics, client, Origin(by))
        if self._tasks([client], ()):  # of another run, it may be
            self.bells.ring([client_topic(client)])
        return accepted

    def _tasks(self, clients: Sequence[str], in_hand: Iterable[tuple[str, Task]]) -> list[tuple[Run, Task]]:
        busy = {task.client for name, task in in_hand if name in self._runs and _is_at(self._runs[name], task)}
        active = [run for run in self._runs.values() if run.state.phase is not None]
        tasks = [(run, task_of(run.state, client)) for run in active for client in clients if client not in busy]
        return [(run, task) for run, task in tasks if task is not None]

    # Events

    def _add(self, run: Run, by: str) -> None:
        record = run.record()
        try:
            self._records.add_run(record, [Entry(run.created_at, by, "run created", run.name, created(run.spec))])
        except RunExists:
            if record not in self._records.runs():  # else it is this very run: only the answer was lost before
                raise

    async def _briefly(self, news: Iterable[tuple[Run, Event]]) -> None:
        """Take events that come up again if they are not recorded; wait for that, but not for long."""
        work = [self._spawn(self._try(run, event)) for run, event in list(news)]
        if work:
            await asyncio.wait(work, timeout=BRIEFLY_S)

    async def _try(self, run: Run, event: Event) -> None:
        try:
            await self._intake.take(run, event)
        except OperationError as error:
            log_event("event not recorded", logging.WARNING, run=run.name, what=type(event).__name__, error=str(error))

    def _go_on(self, run: Run, commands: Sequence[Command]) -> None:
        """After steps that are recorded: tell whoever waits for them, and do what is to be done here."""
        self._tell(run, commands)
        self._carry_out(run, commands)

    def _tell(self, run: Run, commands: Iterable[Command]) -> None:
        called = [client_topic(command.client) for command in commands if isinstance(command, Train | Evaluate)]
        self.changes += 1
        self.bells.ring([run_topic(run.name), ANY_RUN, *called])
        if commands or run.state.ended:
            phase, reason = run.state.phase, run.state.reason
            log_event("run", run=run.name, state=run.state.status, phase=phase, round=run.state.round, reason=reason)

    def _carry_out(self, run: Run, commands: Sequence[Command]) -> None:
        still = set(pending(run.state)) if commands else ()
        for command in commands:
            if isinstance(command, Reduce | Aggregate) and command in still:  # clients fetch the others
                self._spawn(self._sync(run, command))

    async def _sync(self, run: Run, command: Reduce | Aggregate) -> None:
        try:
            if isinstance(command, Reduce):
                await self._reduce(run, command)
            else:
                await self._aggregate(run, command)
        except MicrosflError as error:
            what = type(command).__name__.lower()
            await self._fail(run, f"{what} of round {command.round} failed ({error.code}): {error}")
        except Exception:  # noqa: BLE001  (the task's outermost net: a bug must not leave the run waiting for ever)
            log.exception("sync broke")
            await self._fail(run, f"{type(command).__name__.lower()} of round {command.round} broke; see the log")

    async def _reduce(self, run: Run, command: Reduce) -> None:
        servers = partial(self.roster.servers, SPLIT_SERVER)
        answer = await self._data_plane.reduce(servers, run.name, command.round)
        news = rounds.Reduced(command.round, answer.version)
        await self._intake.take(run, news, reduced_row(answer), origin=committed(answer))

    async def _aggregate(self, run: Run, command: Aggregate) -> None:
        servers = partial(self.roster.servers, FED_SERVER)
        answer = await self._data_plane.aggregate(servers, run.name, command.round, command.clients, command.last)
        news = rounds.Aggregated(command.round, answer.version)
        await self._intake.take(run, news, aggregated_row(answer), origin=committed(answer))

    async def _fail(self, run: Run, reason: str) -> None:
        try:
            await self._intake.take(run, rounds.Failed(reason))
        except OperationError as error:
            # Whoever watches the run learns it all the same; a restart goes on from the last state that was written.
            log_event("failure not recorded", logging.ERROR, run=run.name, reason=reason, error=str(error))
            async with run.lock:
                run.state, _ = rounds.step(run.state, rounds.Failed(reason))
                run.revision += 1
            self._tell(run, ())

    # Background

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("background work broke", exc_info=task.exception())

    async def _patrol(self) -> None:
        """Tell the runs what time it is. What is due follows from state and records, so a restart loses no timer."""
        while True:
            await asyncio.sleep(PATROL_EVERY_S)
            for run in self.runs():
                for event in due(run, self.roster, self._clock()):
                    await self._try(run, event)
            await self.offer_clients()


def _is_at(run: Run, task: Task) -> bool:
    """Whether a client that was given `task` has not reported it: it is open, or the round went on without it."""
    return task == task_of(run.state, task.client) or task.client in run.state.away
