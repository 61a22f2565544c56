"""Averages against naive versions, and the body's step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from microsfl.core.average import WeightedMean
from microsfl.core.codec import make_optimizer, pack_optimizer, unpack_optimizer
from microsfl.core.reduce import BodyState, OptimizerRule, Reduction, next_state
from microsfl.errors import InvalidSetting, TensorMismatch
from microsfl.spec import OPTIMIZERS

units = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(0, 999)), min_size=1, max_size=8)


def gradient(seed: int) -> torch.Tensor:
    return torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))


@given(units, st.sampled_from(["mean-batches", "mean-samples", "sum"]))
@settings(max_examples=60, deadline=None)
def test_reductions_are_what_their_names_say(given_units: list[tuple[int, int, int]], kind: str) -> None:
    """Naive: the gradients of all batches in a list, each repeated as often as its weight says."""
    reduction = Reduction(kind)
    total, weight = torch.zeros(3, 2, dtype=torch.float64), 0
    for batches, samples_each, seed in given_units:
        mean_gradients = [gradient(seed + number) for number in range(batches)]
        reduction.add({"w": torch.stack(mean_gradients).sum(0)}, {}, batches=batches, samples=batches * samples_each)
        for one in mean_gradients:
            scale = samples_each if kind == "mean-samples" else 1
            total += scale * one.double()
            weight += scale
    expected = total if kind == "sum" else total / weight
    torch.testing.assert_close(reduction.gradient()["w"], expected.float(), rtol=1e-5, atol=1e-6)


def test_the_mean_of_one_contribution_is_that_contribution() -> None:
    reduction = Reduction("mean-batches")
    reduction.add({"w": gradient(1)}, {"n": torch.tensor(7)}, batches=1, samples=8)
    assert torch.equal(reduction.gradient()["w"], gradient(1))
    assert torch.equal(reduction.buffers.result()["n"], torch.tensor(7))


def test_a_gradient_that_some_contributions_lack_counts_as_zero_there() -> None:
    reduction = Reduction("mean-batches")
    reduction.add({"w": torch.ones(2)}, {}, batches=1, samples=1)
    reduction.add({}, {}, batches=1, samples=1)
    assert torch.equal(reduction.gradient()["w"], torch.full((2,), 0.5))


def test_unknown_reductions_and_unlike_shapes_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="median"):
        Reduction("median")
    mean = WeightedMean()
    mean.add({"w": torch.ones(2)}, 1.0)
    with pytest.raises(TensorMismatch, match="'w'"):
        mean.add({"w": torch.ones(3)}, 1.0)


def body() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))


def options(name: str) -> dict[str, Any]:
    return {"lr": 0.1, **({"momentum": 0.9} if name == "SGD" else {})}


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "Muon"])
def test_a_step_from_files_is_a_step_in_memory(name: str) -> None:
    """Three steps with the state packed and unpacked in between equal three steps of one living optimizer."""
    living = body()
    optimizer = make_optimizer(name, living.parameters(), options(name))
    state = BodyState(body(), {}, {})
    for number in range(3):
        gradients = {n: gradient(number).new_full(p.shape, 0.1 * (number + 1)) for n, p in living.named_parameters()}
        for parameter_name, parameter in living.named_parameters():
            parameter.grad = gradients[parameter_name].clone()
        optimizer.step()
        reduction = Reduction("mean-batches")
        reduction.add(gradients, {}, batches=1, samples=1)
        state = next_state(state, reduction, OptimizerRule(name, options(name)))
    for ours, theirs in zip(state.body.parameters(), living.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_leaves_the_version_before_as_it_was() -> None:
    state = BodyState(body(), {}, {})
    before = {name: tensor.clone() for name, tensor in state.body.state_dict().items()}
    reduction = Reduction("sum")
    reduction.add({"0.weight": torch.ones(4, 4)}, {"1.running_mean": torch.ones(4)}, batches=1, samples=1)
    after = next_state(state, reduction, OptimizerRule("SGD", {"lr": 1.0}))
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.body.state_dict().items())
    assert torch.equal(after.body.state_dict()["0.weight"], before["0.weight"] - 1)
    assert torch.equal(after.body.state_dict()["1.running_mean"], torch.ones(4))
    assert torch.equal(after.body.state_dict()["2.weight"], before["2.weight"])


def test_gradients_that_the_body_lacks_are_refused() -> None:
    for gradients in ({"x": torch.ones(1)}, {"0.weight": torch.ones(2, 2)}):
        reduction = Reduction("sum")
        reduction.add(gradients, {}, batches=1, samples=1)
        with pytest.raises(TensorMismatch):
            next_state(BodyState(body(), {}, {}), reduction, OptimizerRule("SGD", {"lr": 1.0}))


@pytest.mark.parametrize("wrong", [{"lrr": 1.0}, {"lr": -1.0}, {"lr": 0.1, "momentum": -3}])
def test_options_that_the_optimizer_does_not_take_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidSetting, match=r"torch\.optim\.SGD"):
        make_optimizer("SGD", body().parameters(), wrong)


def test_the_state_survives_packing() -> None:
    model = body()
    first = make_optimizer("Adam", model.parameters(), {"lr": 0.1})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    first.step()
    tensors, scalars = pack_optimizer(first)
    second = make_optimizer("Adam", model.parameters(), {"lr": 0.1})
    unpack_optimizer(second, tensors, scalars)
    again, _ = pack_optimizer(second)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
