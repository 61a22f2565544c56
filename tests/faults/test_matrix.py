"""Faults × moments × roles, each with the same expected end: the run finishes with the weights of the calm run."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from microsfl.launch.child import Child
from microsfl.launch.control import Control
from tests.faults.chaos import Cluster, Outcome, acknowledged, audit, spec_of

HANGS_S = 2.0

names = (f"matrix-{number}" for number in itertools.count())


def kill(child: Child) -> Callable[[], None]:
    """It is gone at once, and started again by the supervisor."""
    os.kill(child.process.pid, signal.SIGKILL)
    return lambda: None


def terminate(child: Child) -> Callable[[], None]:
    """It ends in order, and is started again."""
    os.kill(child.process.pid, signal.SIGTERM)
    return lambda: None


def hang(child: Child) -> Callable[[], None]:
    """It neither answers nor ends; it goes on when the run is over, or, where there is no other, after two seconds."""
    pid = child.process.pid
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


FAULTS = (kill, terminate, hang)
ROLES = ("coordinator", "fed-server", "split-server-1", "clients-0")
MOMENTS = ("training", "syncing", "evaluating")
# What `make test` runs; the others take four minutes and run in CI.
QUICK = {(kill, role, "training") for role in ROLES} | {(hang, "split-server-1", "training")}


def cases() -> list[Any]:
    return [
        pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow])
        for case in itertools.product(FAULTS, ROLES, MOMENTS)
    ]


@pytest.mark.parametrize(("fault", "role", "moment"), cases())
def test_the_run_ends_as_if_nothing_had_been(
    fault: Callable[[Child], Callable[[], None]], role: str, moment: str, living: Cluster, calm: Outcome
) -> None:
    spec = spec_of(next(names))
    control = Control(living.federation.coordinator, spec.run.name)
    control.create(spec)
    control.start()
    living.wait(control, lambda run: run["phase"] == moment and run["round"] >= 1)
    child = next(child for child in living.federation.children if child.name == role)
    undo = fault(child)
    if fault is hang and role.startswith("split-server"):
        living.finish(control)
        undo()
    else:
        living.pause(HANGS_S if fault is hang else 0.0)
        undo()
        living.finish(control)
    outcome = living.outcome(spec)
    assert outcome.hashes == calm.hashes
    audit(outcome.commits, outcome.stored, acknowledged(spec))
