"""How a combined gradient becomes a step: the discount of stale contributions, the bound of the norm, the schedule."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from microsfl.core.codec import make_optimizer
from microsfl.core.reduce import BodyState, OptimizerRule, Reduction, StepRule, clipped, next_state
from microsfl.core.schedule import Schedule
from microsfl.spec import OPTIMIZERS

KINDS = ("mean-batches", "mean-samples", "sum")
CONSTANT = Schedule("constant", rounds=9)
contributions = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(0, 6), st.integers(0, 999)), min_size=1, max_size=6
)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def body(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def gradients(seed: int, factor: float = 1.0) -> dict[str, torch.Tensor]:
    return {name: factor * drawn(seed + i, *p.shape) for i, (name, p) in enumerate(body().named_parameters())}


def reduced(seed: int, factor: float = 1.0, reduction: Reduction | None = None) -> Reduction:
    reduction = reduction or Reduction("mean-batches")
    reduction.add(gradients(seed, factor), {"1.running_mean": drawn(seed, 4)}, batches=1, samples=8)
    return reduction


def same(one: BodyState, other: BodyState) -> bool:
    pairs = [
        (one.body.state_dict(), other.body.state_dict()),
        (one.tensors, other.tensors),
    ]
    return one.scalars == other.scalars and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs
    )


@given(contributions, st.sampled_from(KINDS), st.floats(0, 2))
@settings(max_examples=80, deadline=None)
def test_a_stale_contribution_counts_less_and_the_divisor_stays(
    given_units: list[tuple[int, int, int, int]], kind: str, discount: float
) -> None:
    """Naive: FedBuff's sum of discounted updates over their number, batch by batch."""
    reduction = Reduction(kind, discount)
    total, count = torch.zeros(3, 2, dtype=torch.float64), 0.0
    statistics, weight = torch.zeros(4, dtype=torch.float64), 0.0
    for batches, samples_each, staleness, seed in given_units:
        one, buffer = drawn(seed, 3, 2), drawn(seed, 4)
        reduction.add({"w": one}, {"b": buffer}, batches=batches, samples=batches * samples_each, staleness=staleness)
        scale = samples_each if kind == "mean-samples" else 1
        total += scale * one.double() / (1 + staleness) ** discount
        count += scale * batches
        statistics += buffer.double() * batches / (1 + staleness) ** discount
        weight += batches / (1 + staleness) ** discount
    expected = total if kind == "sum" else total / count
    torch.testing.assert_close(reduction.gradient()["w"], expected.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(reduction.buffers.result()["b"], (statistics / weight).float(), rtol=1e-5, atol=1e-6)


@given(st.integers(0, 999), st.floats(1e-3, 10), st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
def test_a_gradient_is_scaled_down_to_the_norm_over_all_its_tensors(seed: int, clip_norm: float, size: float) -> None:
    found = clipped(gradients(seed, size), clip_norm)
    parameters = [nn.Parameter(torch.zeros_like(tensor)) for tensor in found.values()]
    for parameter, tensor in zip(parameters, gradients(seed, size).values(), strict=True):
        parameter.grad = tensor
    nn.utils.clip_grad_norm_(parameters, clip_norm)  # adds 1e-6 to the norm that it divides by
    for parameter, tensor in zip(parameters, found.values(), strict=True):
        torch.testing.assert_close(tensor, parameter.grad, rtol=1e-4, atol=1e-7)


@given(st.integers(0, 999), st.sampled_from(KINDS), st.integers(0, 8), st.sampled_from(["SGD", "Adam", "ASGD"]))
@settings(max_examples=30, deadline=None)
def test_without_discount_bound_and_schedule_no_bit_changes(seed: int, kind: str, round_: int, name: str) -> None:
    rule = OptimizerRule(name, {"lr": 0.1})
    start = next_state(BodyState(body(), {}, {}), reduced(seed + 7), rule)
    plain = next_state(start, reduced(seed, reduction=Reduction(kind)), rule)
    for step in (StepRule(rule, CONSTANT, kind), StepRule(rule, CONSTANT, kind, 0.0, clip_norm=1e6)):
        assert same(step.next_state(start, reduced(seed, reduction=step.reduction()), round_), plain)


def test_a_stale_or_large_gradient_does_move_the_body_less() -> None:
    """The test of the test."""
    rule, start = OptimizerRule("SGD", {"lr": 0.1}), BodyState(body(), {}, {})
    plain = next_state(start, reduced(1), rule)
    for step in (
        StepRule(rule, CONSTANT, clip_norm=0.1),
        StepRule(rule, Schedule("cosine", rounds=2)),
    ):
        assert not same(step.next_state(start, reduced(1), 1), plain)
    step = StepRule(rule, CONSTANT, staleness_discount=0.5)
    stale = step.reduction()
    stale.add(gradients(1), {}, batches=1, samples=8, staleness=3)
    torch.testing.assert_close(stale.gradient()["2.bias"], gradients(1)["2.bias"] / 2)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "Muon"])
def test_a_schedule_is_torch_s_own_scheduler_on_a_living_optimizer(name: str) -> None:
    """Only the step's learning rate changes: the state goes from version to version as if there were no schedule."""
    options: dict[str, Any] = {"lr": 0.1, **({"momentum": 0.9} if name == "SGD" else {})}
    schedule = Schedule("step", rounds=4, warmup_rounds=1, step_rounds=2, step_factor=0.25)
    rule = StepRule(OptimizerRule(name, options), schedule)
    living = copy.deepcopy(body())
    optimizer = make_optimizer(name, living.parameters(), options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    state = BodyState(body(), {}, {})
    for round_ in range(4):
        for parameter_name, parameter in living.named_parameters():
            parameter.grad = gradients(round_)[parameter_name]
        optimizer.step()
        scheduler.step()
        state = rule.next_state(state, reduced(round_), round_)
    for ours, theirs in zip(state.body.parameters(), living.parameters(), strict=True):
        assert torch.equal(ours, theirs)
