"""A whole run in one process: the coordinator's state machine, the replicas' functions, the clients' training.

What is computed is what the services compute, message by message; the clients take their units in turn, instead of
at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ..client.trainer import Metrics, Task
from ..core import rounds
from ..core.commands import Aggregate, Reduce, pending, task_of
from ..core.commands import Task as Command
from ..core.rounds import Event
from ..core.run_state import Phase
from ..errors import InvalidSetting
from ..launch.model_files import model_files
from ..launch.preflight import resolve
from ..launch.rehearsal import rehearse
from ..launch.results import Results
from ..launch.summary import settled_by
from ..services.adoption import fresh
from ..services.api import MetricsRow, round_json, task_json
from ..services.data_plane import AggregateAnswer, ReduceAnswer, aggregated_row, reduced_row
from ..services.reports import EvaluateMetrics, TrainMetrics
from ..services.run import Run, plan, take
from ..services.spent import profile_of
from ..spec import RunSpec
from ..sync.commits import Commit
from ..zoo.datasets import Data
from .federation import Federation, Sweeper

Json = dict[str, Any]
OnRound = Callable[[Json, list[Json]], None]


@dataclass(frozen=True)
class Simulated(Results):
    """What a simulated run came to; times are UTC unix seconds of this process. seconds: wall time of everything.

    profile: rows as the coordinator's API has them. commits: of the body, oldest first, without version 0.
    """

    commits: list[Commit]
    seconds: float
    profile: list[Json]


def simulate(
    spec: RunSpec,
    *,
    data: Data | None = None,
    on_round: OnRound | None = None,
    threads: int = 1,
    is_resolved: bool = False,
) -> Simulated:
    """Run `spec` to its end in this process.

    With a deterministic strategy the weights are those that the services give, on the same machine with as many
    threads. Nobody is late here: deadlines and quorums have no effect.

    Args:
        data: what `spec.data` names, where it is loaded already.
        on_round: gets the row of each round that is over, and its clients' metrics.
        threads: that one torch operation uses, while this lasts.
        is_resolved: whether `spec` comes from `resolve`, which then need not look at the data again.

    Raises:
        InputError: whatever is wrong with the specification; NotFinite when training diverges.
    """
    if not spec.run.managed:
        raise InvalidSetting("run.managed = false cannot be simulated: its rounds are driven by loops of your own.")
    began = time.perf_counter()
    spec = alone(spec if is_resolved else resolve(spec, data))
    with torch_threads(threads):
        rehearsal = rehearse(spec, data)
        federation = Federation(spec, rehearsal)
        try:
            simulation = Simulation(spec, federation, on_round or (lambda *_: None))
            simulation.run()
        finally:
            federation.close()
    return Simulated(
        spec=spec,
        rounds=simulation.rounds(),
        metrics=simulation.metrics(),
        profile=simulation.profile(),
        model=model_files(*federation.weights(), rehearsal.parts),
        settled=settled_by(simulation.sweeper.commits),
        class_counts=rehearsal.class_counts,
        commits=simulation.sweeper.commits,
        seconds=time.perf_counter() - began,
    )


class Simulation:
    """The coordinator's part: takes the run from one state to the next, and does or has done what is pending."""

    def __init__(self, spec: RunSpec, federation: Federation, on_round: OnRound) -> None:
        now = time.time()
        self.federation = federation
        self.sweeper = Sweeper(federation)
        self.on_round = on_round
        self.live = Run(spec, now, fresh(spec), now)
        self._metrics: dict[tuple[int, str], Json] = {}

    def run(self) -> None:
        """Every round, to the end of the run."""
        self._handle(rounds.Started())
        self._handle(rounds.ClientsAvailable(tuple(self.federation.trainers)))
        phases = {Phase.TRAINING: self._train, Phase.SYNCING: self._sync, Phase.EVALUATING: self._evaluate}
        while self.live.state.phase is not None:
            phases[self.live.state.phase]()

    def rounds(self) -> list[Json]:
        """The coordinator's row for each round."""
        return [round_json(row).model_dump(mode="json") for row in self.live.rounds.values()]

    def metrics(self) -> list[Json]:
        """The coordinator's row for each round and client."""
        return [{name: row.get(name) for name in MetricsRow.model_fields} for row in self._rows()]

    def profile(self) -> list[Json]:
        """Where the time went, as the coordinator's API tells it."""
        rows: list[Json] = profile_of(self.live.rounds.values(), self._rows()).model_dump(mode="json")["profile"]
        return rows

    def _rows(self) -> list[Json]:
        return [{"round": r, "client": c, **row} for (r, c), row in sorted(self._metrics.items())]

    def _train(self) -> None:
        """Who has a task advances by a unit; so over and over, in the order of the round, until all have trained."""
        at_work: dict[str, Generator[None, None, Metrics]] = {}
        while self.live.state.phase is Phase.TRAINING:
            for client in self.live.state.chosen:
                task = task_of(self.live.state, client)
                if task is None or task.kind != "train":
                    continue  # it is done, or not its turn yet
                if client not in at_work:
                    at_work[client] = self.federation.trainers[client].steps(self._order(task))
                try:
                    next(at_work[client])
                except StopIteration as done:
                    row = TrainMetrics.model_validate(done.value).row()
                    self._handle(rounds.Trained(client, task.round), row, client)
                self.sweeper.sweep()

    def _sync(self) -> None:
        for command in pending(self.live.state):
            match command:
                case Reduce(round_):
                    values, timing = self.federation.reduce(round_)
                    reduced = ReduceAnswer.model_validate(values).with_timing(timing)
                    self._handle(rounds.Reduced(round_, reduced.version), reduced_row(reduced))
                case Aggregate():
                    asked = {"round": command.round, "clients": list(command.clients), "last": command.last}
                    values, timing = self.federation.aggregate(asked)
                    aggregated = AggregateAnswer.model_validate(values).with_timing(timing)
                    self._handle(rounds.Aggregated(command.round, aggregated.version), aggregated_row(aggregated))
        self.sweeper.sweep()

    def _evaluate(self) -> None:
        round_ = self.live.state.round
        for client, trainer in self.federation.trainers.items():
            task = task_of(self.live.state, client)
            if task is not None:
                row = EvaluateMetrics.model_validate(trainer.evaluate(self._order(task))).row()
                self._handle(rounds.Evaluated(client, round_), row, client)
        metrics = [row for row in self.metrics() if row["round"] == round_]
        self.on_round(round_json(self.live.rounds[round_]).model_dump(mode="json"), metrics)

    def _order(self, task: Command) -> Task:
        """The task as the client gets it."""
        return Task(**task_json(self.live, task).model_dump())

    def _handle(self, event: Event, brought: Json | None = None, client: str | None = None) -> None:
        """What the coordinator does with an event, without records."""
        state, _ = rounds.step(self.live.state, event)
        step = plan(self.live, state, time.time(), brought or {}, client, [])
        for key, row in step.metrics.items():
            self._metrics[key] = {**self._metrics.get(key, {}), **row}
        take(self.live, step)


def alone(spec: RunSpec) -> RunSpec:
    """What is simulated of `spec`: one split server, and no deadline."""
    servers = spec.servers.model_copy(update={"split": 1})
    run = spec.run.model_copy(update={"deadline_s": 0, "quorum": 1.0})
    return spec.model_copy(update={"servers": servers, "run": run})


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let one torch operation use `count` threads, while this lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
