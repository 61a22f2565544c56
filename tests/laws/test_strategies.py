"""Law 1 between strategies: what has to come out alike does, on real data and with the same message bytes as services.

Against plain PyTorch training: test_law_1_equivalence.py (filesync), test_sflv1.py, test_turns.py (sflv2, sl),
tests/unit/test_trainer.py (fedavg). Against the services: tests/integration/test_simulation.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from microsfl.simulate import Simulated, simulate
from microsfl.spec import RunSpec
from microsfl.wire.tensors import decode

SGD = {"name": "SGD", "lr": 0.1}
SPLIT = ("filesync", "sflv1", "sflv2", "sl")


def run(strategy: dict[str, Any], *, clients: int = 1, u_shaped: bool = True, **tables: dict[str, Any]) -> Simulated:
    values: dict[str, Any] = {
        "run": {"name": "equal", "rounds": 2},
        "data": {"clients": clients, "batch_size": 64},
        "model": {"u_shaped": u_shaped},
        "strategy": strategy,
        **tables,
    }
    return simulate(RunSpec.parse(values))


def whole(done: Simulated) -> dict[str, Tensor]:
    """The joined model's weights, whatever part each stands in."""
    return {name: tensor for part in done.model.values() for name, tensor in decode(part).tensors.items()}


def assert_equal(one: Simulated, other: Simulated, atol: float = 0.0) -> None:
    torch.testing.assert_close(whole(one), whole(other), rtol=0.0, atol=atol)


def test_sflv1_with_plain_sgd_equals_fedavg_with_the_same_sgd_and_batches() -> None:
    """To 1e-6, as fedavg rounds the weighted mean once for the whole model and sflv1's body is stepped file by file."""
    split = run({"name": "sflv1", "body_optimizer": SGD, "client_optimizer": SGD}, clients=4)
    assert_equal(split, run({"name": "fedavg", "client_optimizer": SGD}, clients=4), atol=1e-6)


@pytest.mark.parametrize("name", SPLIT)
def test_u_shaped_equals_vanilla(name: str) -> None:
    """With equal optimizers on both sides and one client, it does not matter where the tail is."""
    sync = {"sync": 1} if name == "filesync" else {}
    strategy = {"name": name, "body_optimizer": SGD, "client_optimizer": SGD, **sync}
    assert_equal(run(strategy), run(strategy, u_shaped=False), atol=1e-6)


@pytest.mark.parametrize("name", ["sflv1", "sl"])
def test_u_shaped_equals_vanilla_with_several_clients(name: str) -> None:
    """Where a client's tail meets what its body meets: averaged like the copies, handed on like the body."""
    strategy = {"name": name, "body_optimizer": SGD, "client_optimizer": SGD}
    assert_equal(run(strategy, clients=3), run(strategy, clients=3, u_shaped=False), atol=1e-6)


def test_u_shaped_equals_vanilla_for_an_auxiliary_head() -> None:
    """The front never hears of the task's loss, so it is the same; and so are body and tail, batch by batch."""
    strategy = {"name": "cse-fsl", "sync": 1, "send_every": 3, "body_optimizer": SGD, "client_optimizer": SGD}
    assert_equal(run(strategy), run(strategy, u_shaped=False), atol=1e-6)


@pytest.mark.parametrize("name", ["filesync", "sflv2", "sl", "fedavg", "centralized"])
def test_with_one_client_these_are_all_the_same_training(name: str) -> None:
    """A commit per batch and nobody to average with: plain training, which `centralized` is by definition."""
    sync = {"sync": 1} if name == "filesync" else {}
    body = {} if name in ("fedavg", "centralized") else {"body_optimizer": SGD}
    plain = run({"name": "centralized", "client_optimizer": SGD})
    assert_equal(run({"name": name, "client_optimizer": SGD, **body, **sync}), plain, atol=1e-6)


@pytest.mark.parametrize("name", ["filesync", "sl"])
def test_a_frozen_front_means_the_same_with_a_cut_and_without(name: str) -> None:
    """So that a comparison on features that nobody trains compares the training of the rest."""
    sync = {"sync": 1} if name == "filesync" else {}
    frozen = {"front_update": "never", "unit": 1, "client_optimizer": SGD}
    without_a_cut = run({"name": "centralized", **frozen})
    assert_equal(run({"name": name, "body_optimizer": SGD, **frozen, **sync}), without_a_cut, atol=1e-6)
    assert without_a_cut.model.keys() == {"front", "tail"}
