"""Versions that one replica commits and others read."""

from __future__ import annotations

import torch
from torch import nn

from microsfl.core.reduce import BodyState, OptimizerRule, StepRule
from microsfl.core.schedule import Schedule
from microsfl.core.step import Gradients
from microsfl.store.objects import ObjectStore, open_store
from microsfl.sync.body import BodySync, SyncRule
from microsfl.wire.messages import UnitMessage

RUN = "toy"


def replica(store: ObjectStore) -> BodySync:
    torch.manual_seed(0)
    step = StepRule(OptimizerRule("Adam", {"lr": 0.1}), Schedule("constant", rounds=9))
    return BodySync(store, RUN, nn.Linear(4, 4), SyncRule("round", False, 0, 1, step), {})


def round_(sync: BodySync, number: int) -> None:
    """One contribution, committed by `sync`."""
    gradients = {name: torch.full_like(p, 1.0 + number) for name, p in sync.template.named_parameters()}
    unit = UnitMessage(run=RUN, round=number, client="c", unit=0)
    sync.contribute(unit, number, 8, Gradients(inputs={}, body=gradients), {})
    sync.close(number)


def weights(state: BodyState) -> list[torch.Tensor]:
    return list(state.body.state_dict().values())


def test_who_only_computes_leaves_the_optimizers_state_in_the_store() -> None:
    store = open_store("memory://")
    writer, reader = replica(store), replica(store)
    writer.initialize()
    round_(writer, 0)
    written, read = writer.state(1), reader.state(1)
    assert all(map(torch.equal, weights(written), weights(read)))
    assert read.size_bytes == sum(tensor.nbytes for tensor in weights(read))
    assert written.size_bytes > 2.9 * read.size_bytes  # Adam keeps two numbers for each weight


def test_who_commits_steps_with_the_optimizers_state_of_the_version_before_it() -> None:
    one, other = open_store("memory://"), open_store("memory://")
    alone, first, second = replica(one), replica(other), replica(other)
    alone.initialize()
    first.initialize()
    for number, in_turns in enumerate([first, second, first]):
        round_(alone, number)
        in_turns.state(number)  # computed with it
        round_(in_turns, number)
    assert all(map(torch.equal, weights(alone.state(3)), weights(second.state(3))))
