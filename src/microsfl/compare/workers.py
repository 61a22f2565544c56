"""Several cells at a time, each in a worker process that computes on one thread."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from ..spec import RunSpec
from .execute import failure, result_of, simulated

Json = dict[str, Any]
# (cell, rounds that are over) and (cell, its result, its metrics)
OnRound = Callable[[str, int], None]
OnResult = Callable[[str, Json, list[Json]], None]


class Worker:
    """A process that takes one cell after another. Messages are JSON: a task goes there, rounds and a result come."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process must not use torch's threads
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True, name="microsfl-compare")
        self.process.start()
        theirs.close()
        self.cell: str | None = None

    def give(self, cell: str, spec: RunSpec) -> None:
        self.cell = cell
        self.pipe.send_bytes(json.dumps({"cell": cell, "spec": spec.model_dump(mode="json")}).encode())

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def simulate_all(tasks: Sequence[tuple[str, RunSpec]], jobs: int, on_round: OnRound, on_result: OnResult) -> None:
    """Simulate every (cell, resolved specification), `jobs` at a time; one at a time, in this process.

    However this ends, no worker is left. A cell whose worker ends, killed for its memory, say, has failed; the others
    go on.
    """
    if jobs == 1 or len(tasks) == 1:
        for cell, spec in tasks:
            on_result(cell, *result_of(cell, spec, simulated(partial(on_round, cell))))
        return
    waiting = deque(tasks)
    workers: list[Worker] = []
    try:
        while waiting or any(worker.cell for worker in workers):
            while waiting and len(workers) < jobs:
                workers.append(Worker())
                workers[-1].give(*waiting.popleft())
            for pipe in wait([worker.pipe for worker in workers]):
                worker = next(one for one in workers if one.pipe is pipe)
                if _take(worker, on_round, on_result) and waiting:
                    worker.give(*waiting.popleft())
                elif worker.cell is None:
                    workers.remove(worker)
                    worker.end()
    finally:
        for worker in workers:
            worker.end()


def _take(worker: Worker, on_round: OnRound, on_result: OnResult) -> bool:
    """Pass one message on; True when the worker is free for another cell."""
    assert worker.cell is not None
    cell = worker.cell
    try:
        said = json.loads(worker.pipe.recv_bytes())
    except (EOFError, OSError):
        worker.process.join()
        worker.cell = None
        on_result(cell, failure(cell, f"its process ended with exit code {worker.process.exitcode}"), [])
        return False
    if "rounds" in said:
        on_round(cell, said["rounds"])
        return False
    worker.cell = None
    on_result(cell, said["result"], said["metrics"])
    return True


def _serve(pipe: Connection) -> None:
    """A worker's main function; it ends when the other end is closed."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent, which ends its workers
    torch.set_num_threads(1)

    def tell(**message: Any) -> None:
        pipe.send_bytes(json.dumps(message).encode())

    try:
        while True:
            task = json.loads(pipe.recv_bytes())
            run = simulated(lambda rounds: tell(rounds=rounds))
            result, metrics = result_of(task["cell"], RunSpec.parse(task["spec"]), run)
            tell(result=result, metrics=metrics)
    except (EOFError, BrokenPipeError):
        return
