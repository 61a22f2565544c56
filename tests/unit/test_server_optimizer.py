"""Server optimizers against the papers' formulas, coordinate by coordinate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.core.server_optimizer import ServerOptimizer
from microsfl.errors import InvalidSetting, TensorMismatch
from tests.unit import reference

coordinates = st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3)
NAMES = ("FedAvgM", "FedAdam", "FedYogi")


@given(
    st.sampled_from(NAMES),
    coordinates,
    st.lists(coordinates, min_size=1, max_size=5),
    st.floats(0.01, 1),
    st.floats(0, 0.99),
    st.floats(0, 0.999),
)
@settings(max_examples=80, deadline=None)
def test_steps_are_the_papers(
    name: str, start: list[float], averages: list[list[float]], lr: float, beta1: float, beta2: float
) -> None:
    values: dict[str, Any] = {"name": name, "lr": lr, "beta1": beta1, "beta2": beta2, "tau": 0.01}
    rule, naive = ServerOptimizer(**values), [reference.ServerOptimizer(**values) for _ in start]
    weights, state, expected = {"w": torch.tensor(start)}, {}, list(start)
    for average in averages:
        weights, state = rule.step(weights, {"w": torch.tensor(average)}, state, {"w"})
        expected = [one.step(*pair) for one, *pair in zip(naive, expected, average, strict=True)]
        assert weights["w"].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert set(state) == ({"m.w"} if name == "FedAvgM" else {"m.w", "v.w"})


@given(coordinates, coordinates)
@settings(max_examples=50, deadline=None)
def test_fedavgm_without_momentum_at_rate_one_is_plain_averaging(before: list[float], average: list[float]) -> None:
    rule, state = ServerOptimizer("FedAvgM", lr=1.0, beta1=0.0), {"m.w": torch.full((3,), 100.0)}
    weights, _ = rule.step({"w": torch.tensor(before)}, {"w": torch.tensor(average)}, state, {"w"})
    torch.testing.assert_close(weights["w"], torch.tensor(average), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_trained_is_stepped_and_nothing_given_is_changed(name: str) -> None:
    before = {"w": torch.zeros(2), "running_mean": torch.zeros(2), "count": torch.tensor(3), "index": torch.tensor([1])}
    average = {"w": torch.ones(2), "running_mean": torch.ones(2), "count": torch.tensor(9), "index": torch.tensor([5])}
    given_values = [tensor.clone() for tensor in (*before.values(), *average.values())]
    rule = ServerOptimizer(name, lr=0.1)
    first, state = rule.step(before, average, {}, {"w", "index"})
    kept = {key: tensor.clone() for key, tensor in state.items()}
    rule.step(first, average, state, {"w", "index"})
    assert {key.split(".", 1)[1] for key in state} == {"w"}
    assert all(torch.equal(first[key], average[key]) for key in ("running_mean", "count", "index"))
    assert not torch.equal(first["w"], average["w"])
    assert all(map(torch.equal, (*before.values(), *average.values()), given_values))
    assert all(torch.equal(state[key], tensor) for key, tensor in kept.items())


def test_none_takes_the_average_as_it_is_and_what_does_not_fit_is_refused() -> None:
    average = {"w": torch.full((2,), 0.1)}
    assert ServerOptimizer().step({"w": torch.ones(2)}, average, {}, {"w"}) == (average, {})
    with pytest.raises(InvalidSetting, match="FedSGD"):
        ServerOptimizer("FedSGD").step(average, average, {}, {"w"})
    for before, state in (({}, {}), ({"w": torch.ones(3)}, {}), ({"w": torch.ones(2)}, {"m.w": torch.ones(3)})):
        with pytest.raises(TensorMismatch, match="w"):
            ServerOptimizer("FedAvgM").step(before, average, state, {"w"})
