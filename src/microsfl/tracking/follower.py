"""Follows a run for its trackers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import OperationError
from ..spec import RunSpec
from .rows import Json, client_figures, round_figures
from .tracker import Patient, State, Tracker


class Follower:
    """Hands each round that is over to all trackers, once."""

    def __init__(self, trackers: Sequence[Patient]) -> None:
        self.trackers = trackers
        self.rounds = 0
        self.began = False

    def follow(self, history: Sequence[Json], metrics: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        """history: of the rounds that are over. metrics: the clients' rows, asked for when there is a new round."""
        new = history[self.rounds :]
        if not self.trackers or (self.began and not new):
            return
        try:
            rows = metrics() if new else ()
        except OperationError:
            return  # at the next change; that the coordinator is away is for others to say
        told = []
        for row in new:
            number = int(row["round"])
            of_round = [one for one in rows if one["round"] == number]
            told.append((number, round_figures(row), client_figures(of_round)))
        self.began, self.rounds = True, len(history)
        for tracker in self.trackers:
            tracker.log(told)

    def end(self, state: State) -> None:
        for tracker in self.trackers if self.began else ():
            tracker.end(state)


@contextmanager
def tracked(names: Sequence[str], spec: RunSpec, folder: Path) -> Iterator[Follower]:
    """A follower of the run in `folder`, which begins once it is given something, and ends with the block."""
    follower = Follower([Patient(name, _open(name, spec, folder.resolve())) for name in dict.fromkeys(names)])
    try:
        yield follower
    except BaseException as error:
        follower.end("failed" if isinstance(error, Exception) else "interrupted")
        raise
    follower.end("finished")


def _open(name: str, spec: RunSpec, folder: Path) -> Tracker:
    if name == "tensorboard":
        from .tensorboard import TensorBoard

        return TensorBoard(spec, folder)
    from .mlflow import Mlflow

    return Mlflow(spec, folder)
