"""`microsfl run`: a whole run on this machine, from its specification to a run folder with everything in it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import InvalidSetting, OperationError
from ..spec import RunSpec
from ..tracking import check_trackers
from ..tracking.follower import Follower, tracked
from .federation import Federation
from .forks import Forks
from .preflight import check_matplotlib
from .progress import progress

DRAWS = "`microsfl run` draws its plots"
TERMINATED = 128 + signal.SIGTERM  # as shells report it

Json = dict[str, Any]


def train(
    spec: RunSpec,
    output: Path | None,
    *,
    resume: bool = False,
    forks: Forks | None = None,
    track: Sequence[str] = (),
    on: str | None = None,
) -> tuple[Json, list[Json], Path]:
    """Run `spec` and fill the run folder; the summary, the metrics (a row for each round and client) and the folder.

    Args:
        resume: go on with the run that the folder or the stores hold.
        forks: where its processes are forked; default: from a fork server of its own.
        track: "tensorboard" and "mlflow", which are told of the run while it lives.
        on: where its processes are: ray, ray://host:port or ray:address; None: on this machine.

    Raises:
        InputError: when something is wrong with the specification or the folder.
        RunFailed: when the run ends before its last round. Everything that was written stays.
    """
    _check_managed(spec)
    check_matplotlib(DRAWS)
    check_trackers(track)
    federation = _federation(spec, output, resume, forks, on)
    from . import plots  # noqa: F401 - matplotlib is there when it is needed, and imported while others import torch
    from .results import results_of, write_results

    following = tracked(track, federation.spec, federation.path)
    # Ray prints what happens to its workers; standard output is for the results.
    said = nullcontext() if on is None else redirect_stdout(sys.stderr)
    with said, signals_unwind(), following as follower, progress(federation) as show, federation:
        rounds, metrics = _follow(federation, show, follower)
        results = results_of(federation, rounds, metrics)
        federation.finish()  # the results are written while the processes end
        summary = write_results(federation.folder, results)
    return summary, metrics, federation.folder.path


def _federation(spec: RunSpec, output: Path | None, resume: bool, forks: Forks | None, on: str | None) -> Federation:
    if on is None:
        return Federation(spec, output, resume=resume, forks=forks)
    from .ray.cluster import address_in
    from .ray.federation import RayFederation

    return RayFederation(spec, address_in(on), output, resume=resume, forks=forks)


def _follow(federation: Federation, show: Callable[[Json], None], follower: Follower) -> tuple[list[Json], list[Json]]:
    """The run's rounds and metrics, once it is finished; what there is of the metrics is written in any case."""
    try:
        for run in federation.follow():
            show(run)
            follower.follow(run["history"], federation.control.metrics)
    except BaseException:
        with suppress(OperationError):
            metrics = _write_metrics(federation)
            over = [row for row in federation.control.rounds() if row["ended_at"]]
            follower.follow(over, lambda: metrics)
        raise
    metrics = _write_metrics(federation)
    return federation.control.rounds(), metrics


def _write_metrics(federation: Federation) -> list[Json]:
    """metrics.csv and profile.csv; the metrics."""
    metrics = federation.control.metrics()
    federation.folder.write_metrics(metrics)
    federation.folder.write_profile(federation.control.profile())
    return metrics


def _check_managed(spec: RunSpec) -> None:
    if not spec.run.managed:
        raise InvalidSetting(
            "run.managed = false is for training loops of your own: open `microsfl.Federation` in Python, or start the "
            "roles one by one. `microsfl run` needs run.managed = true."
        )


@contextmanager
def signals_unwind() -> Iterator[None]:
    """Let SIGTERM and SIGINT unwind the stack, so that what was begun is ended.

    Python leaves SIGINT ignored where a shell script started it in the background, which servers do not. In any other
    thread than the main one, which alone gets signals, this has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_: int, __: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    handlers = {signal.SIGTERM: leave, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
