"""The live runs: each event of a run goes through the state machine, into the records, and only then takes effect.

One run's events are handled one after another, under the run's lock. What a state leaves to be done (`rounds.pending`)
is either fetched by the clients (training, evaluation) or carried out here by a background task (reduce, aggregate).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial

from ..core import rounds
from ..core.rounds import Aggregate, Command, Evaluate, Event, Reduce, RunState, Status, Task, Train
from ..errors import ClientNotFound, InvalidSetting, MicrosflError, OperationError, RunExists, RunNotFound, Unreachable
from ..process import event as log_event
from ..process import log
from ..records import Records, Row
from ..spec import RunSpec
from .bells import Bells
from .data_plane import DataPlane
from .roster import FED_SERVER, SPLIT_SERVER, Roster
from .run import Run, load, plan, take

FLUSH_EVERY_S = 3.0


class Director:
    """Holds the runs, hands out tasks, and drives the data plane. Its coroutines belong to one event loop.

    Raises, when it is made:
        StoreCorrupt, StoreUnavailable: when the records cannot be read.
    """

    def __init__(self, records: Records, clock: Callable[[], float], data_plane: DataPlane) -> None:
        self.roster = Roster(records, clock)
        self._records, self._clock, self._data_plane = records, clock, data_plane
        self._runs = {record.name: load(records, record) for record in records.runs()}
        self._bells = Bells()
        self._creating = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()

    # The process

    def begin(self) -> None:
        """Go on with whatever is pending; call it on the event loop."""
        for run in self.runs():
            self._carry_out(run, rounds.pending(run.state))
        self._spawn(self._keep_roster())

    def stop(self) -> None:
        """Answer every long poll, now and from now on at once."""
        self._bells.close()

    async def close(self) -> None:
        """End the background work; what it was about stays pending in the records."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._flush_roster()

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

    async def create(self, spec: RunSpec) -> tuple[Run, bool]:
        """The run of this specification, and whether it is new; a new one is prepared on the data plane first.

        Raises:
            InvalidSetting: when a value that decides the result is still "auto".
            RunExists: when there is a run of this name with another specification.
            Unreachable: when there is no split server or no fed server, or none answers.
            MicrosflError: whatever the data plane has against the specification.
        """
        _check_resolved(spec)
        async with self._creating:
            existing = self._runs.get(spec.run.name)
            if existing is not None:
                if existing.spec.decisive != spec.decisive:
                    raise RunExists(f"There is a run '{existing.name}' with another specification.")
                return existing, False
            await self._prepare(spec)
            state = RunState(rounds=spec.run.rounds, needed=spec.data.clients, managed=spec.run.managed)
            run = Run(spec, self._clock(), state)
            await asyncio.to_thread(self._records.add_run, run.record())
            self._runs[run.name] = run
        log_event("run created", run=run.name)
        return run, True

    async def watch(self, name: str, after: int, wait_s: float) -> Run:
        """The run, as soon as its revision is above `after`, or after `wait_s` seconds.

        Raises:
            RunNotFound
        """
        run = self.run(name)
        if run.revision <= after:
            await self._bells.wait([_run_topic(run)], wait_s)
        return run

    async def start(self, name: str) -> Run:
        """Let the run begin as soon as it has its clients; of no effect on one that was started before.

        Raises:
            RunNotFound
        """
        run = self.run(name)
        await self._handle(run, rounds.Started())
        await self.offer_clients()
        return run

    async def stop_run(self, name: str) -> Run:
        """End the run; of no effect on one that has ended.

        Raises:
            RunNotFound
        """
        run = self.run(name)
        await self._handle(run, rounds.StopRequested())
        return run

    async def metrics(self, name: str) -> list[Row]:
        """The run's metrics, a row for each round and client.

        Raises:
            RunNotFound
        """
        return await asyncio.to_thread(self._records.metrics, self.run(name).name)

    # Clients

    async def offer_clients(self) -> None:
        """Let the waiting runs begin that have enough clients by now."""
        waiting = [run for run in self.runs() if run.state.status is Status.WAITING]
        for run in waiting:
            await self._handle(run, rounds.ClientsAvailable(self.roster.clients()))

    async def poll(self, clients: Sequence[str], wait_s: float) -> list[tuple[Run, Task]]:
        """The open tasks of these clients, as soon as there is one; or none, after `wait_s` seconds.

        Raises:
            ClientNotFound: for clients that never registered.
        """
        self.roster.heard_of(clients)
        await self.offer_clients()
        tasks = self._tasks(clients)
        if not tasks:
            await self._bells.wait(map(_client_topic, clients), wait_s)
            tasks = self._tasks(clients)
        return tasks

    async def report(self, name: str, client: str, event: Event, metrics: Row) -> bool:
        """Take what a client has to say about its task; False when it is not that client's turn, or no longer.

        Raises:
            RunNotFound, ClientNotFound: when there is no such run, or it has no such client.
        """
        run = self.run(name)
        if run.state.clients and client not in run.state.clients:
            raise ClientNotFound(f"Run '{name}' has no client '{client}'.")
        return await self._handle(run, event, metrics, client)

    def _tasks(self, clients: Sequence[str]) -> list[tuple[Run, Task]]:
        active = [run for run in self._runs.values() if run.state.phase is not None]
        tasks = [(run, rounds.task_of(run.state, client)) for run in active for client in clients]
        return [(run, task) for run, task in tasks if task is not None]

    # Events

    async def _handle(self, run: Run, event: Event, brought: Row | None = None, client: str | None = None) -> bool:
        """Take `event` with the columns it `brought` (see `run.plan`); False when it changes nothing.

        Raises:
            StoreUnavailable: when the records cannot be written; then nothing has changed either.
        """
        async with run.lock:
            state, commands = rounds.step(run.state, event)
            if state == run.state:
                return False
            step = plan(run, state, self._clock(), brought or {}, client)
            await asyncio.to_thread(
                self._records.save_progress,
                run.name,
                rounds.to_json(state),
                run.revision + 1,
                rounds=step.rounds,
                metrics=step.metrics,
            )
            take(run, step)
        self._tell(run, commands)
        self._carry_out(run, commands)
        return True

    def _tell(self, run: Run, commands: Iterable[Command]) -> None:
        called = [_client_topic(command.client) for command in commands if isinstance(command, Train | Evaluate)]
        self._bells.ring([_run_topic(run), *called])
        if commands or run.state.ended:
            phase, reason = run.state.phase, run.state.reason
            log_event("run", run=run.name, state=run.state.status, phase=phase, round=run.state.round, reason=reason)

    def _carry_out(self, run: Run, commands: Iterable[Command]) -> None:
        for command in commands:
            if isinstance(command, Reduce | Aggregate):  # clients fetch the others
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

    async def _reduce(self, run: Run, command: Reduce) -> None:
        servers = partial(self.roster.servers, SPLIT_SERVER)
        answer = await self._data_plane.reduce(servers, run.name, command.round)
        counts = answer.model_dump(include={"contributions", "left_out", "batches"})
        await self._handle(run, rounds.Reduced(command.round, answer.version), counts)

    async def _aggregate(self, run: Run, command: Aggregate) -> None:
        servers = partial(self.roster.servers, FED_SERVER)
        answer = await self._data_plane.aggregate(servers, run.name, command.round, command.clients)
        await self._handle(run, rounds.Aggregated(command.round, answer.version))

    async def _fail(self, run: Run, reason: str) -> None:
        try:
            await self._handle(run, rounds.Failed(reason))
        except OperationError as error:
            # Whoever watches the run learns it all the same; a restart goes on from the last state that was written.
            log_event("failure not recorded", logging.ERROR, run=run.name, reason=reason, error=str(error))
            async with run.lock:
                run.state, _ = rounds.step(run.state, rounds.Failed(reason))
                run.revision += 1
            self._tell(run, ())

    async def _prepare(self, spec: RunSpec) -> None:
        missing = [role for role in (SPLIT_SERVER, FED_SERVER) if not self.roster.servers(role)]
        if missing:
            raise Unreachable(f"No {' and no '.join(missing)} has registered with this coordinator; start one.")
        for role in (SPLIT_SERVER, FED_SERVER):
            await self._data_plane.prepare(partial(self.roster.servers, role), spec)

    # Background

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("background work broke", exc_info=task.exception())

    async def _keep_roster(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self._flush_roster()

    async def _flush_roster(self) -> None:
        try:
            await self.roster.flush()
        except OperationError as error:
            log_event("participants not written", logging.WARNING, error=str(error))


def _run_topic(run: Run) -> str:
    return f"run/{run.name}"


def _client_topic(client: str) -> str:
    return f"client/{client}"


def _check_resolved(spec: RunSpec) -> None:
    if spec.unresolved:
        raise InvalidSetting(f"{', '.join(spec.unresolved)} must not be 'auto' any more when a run is created.")
