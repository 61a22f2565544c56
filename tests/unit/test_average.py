"""Client-side averages against naive versions, and against a client that sends nonsense."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.core.average import average
from microsfl.core.step import Tensors
from microsfl.errors import InvalidSetting, TensorMismatch
from tests.unit import reference

# Clients as (samples, four coordinates); with ties, as several clients often agree.
clients = st.lists(
    st.tuples(st.integers(1, 50), st.lists(st.integers(-9, 9) | st.floats(-9, 9, width=32), min_size=4, max_size=4)),
    min_size=1,
    max_size=9,
)


def averaged(kind: str, values: list[list[float]], samples: list[int], trim: float = 0.1) -> list[float]:
    updates = [({"w": torch.tensor(one).reshape(2, 2)}, count) for one, count in zip(values, samples, strict=True)]
    result = average(kind, iter(updates), trim)["w"]
    assert (result.shape, result.dtype) == ((2, 2), torch.float32)
    return [float(one) for one in result.flatten()]


@given(clients, st.floats(0.001, 0.499))
@settings(max_examples=80, deadline=None)
def test_averages_are_what_their_names_say(given_clients: list[tuple[int, list[float]]], trim: float) -> None:
    samples, values = [count for count, _ in given_clients], [[float(x) for x in one] for _, one in given_clients]
    columns = list(zip(*values, strict=True))
    expected = {
        "mean": [reference.mean(column, samples) for column in columns],
        "median": [statistics.median(column) for column in columns],
        "trimmed-mean": [reference.trimmed_mean(column, trim) for column in columns],
    }
    for kind, wanted in expected.items():
        assert averaged(kind, values, samples, trim) == pytest.approx(wanted, rel=1e-6, abs=1e-6), kind


@given(clients, st.sampled_from(["median", "trimmed-mean"]), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_robust_averages_know_no_order_and_no_weight(given_clients: list, kind: str, random) -> None:  # type: ignore[type-arg, no-untyped-def]
    values = [[float(x) for x in one] for _, one in given_clients]
    shuffled = random.sample(values, len(values))
    assert averaged(kind, values, [1] * len(values)) == averaged(kind, shuffled, [count for count, _ in given_clients])


def test_robust_averages_withstand_an_outlier_and_the_mean_does_not() -> None:
    """Nine clients agree to within 0.1; the tenth, with most samples, is a million off, or broken in sign."""
    honest = [[1.0 + 0.01 * number] * 4 for number in range(9)]
    for nonsense in ([1e6] * 4, [-1e6, 1e6, -1e6, 1e6]):
        samples = [10] * 9 + [1000]
        for kind in ("median", "trimmed-mean"):
            assert averaged(kind, [*honest, nonsense], samples) == pytest.approx([1.04] * 4, abs=0.05)
        assert all(abs(one - 1.04) > 1000 for one in averaged("mean", [*honest, nonsense], samples))


@pytest.mark.parametrize("kind", ["mean", "median", "trimmed-mean"])
def test_dtypes_stay_and_integers_are_rounded(kind: str) -> None:
    def update(value: float) -> Tensors:
        return {
            "i": torch.tensor(round(10 * value)), "b": torch.tensor([value > 0]), "h": torch.tensor(value).half(),
            "d": torch.tensor([value], dtype=torch.float64), "empty": torch.empty(0, 3),
        }  # fmt: skip

    result = average(kind, [(update(value), 1) for value in (-0.1, 0.2, 0.4)], trim=0.4)
    assert {name: tensor.dtype for name, tensor in result.items()} == {n: t.dtype for n, t in update(0).items()}
    assert result["i"].item() == (2 if kind != "mean" else round(5 / 3))
    assert result["b"].item() is True
    assert result["empty"].shape == (0, 3)


@pytest.mark.parametrize("kind", ["mean", "median", "trimmed-mean"])
def test_clients_that_agree_are_taken_bit_for_bit(kind: str) -> None:
    weights = {"w": torch.randn(50, generator=torch.Generator().manual_seed(0))}
    assert torch.equal(average(kind, [(weights, count) for count in (1, 7, 13)], 0.4)["w"], weights["w"])


def test_unknown_averages_and_unlike_shapes_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="krum"):
        average("krum", [({"w": torch.ones(1)}, 1)], 0.1)
    for other in ({"w": torch.ones(3)}, {}):
        with pytest.raises(TensorMismatch, match="'w'"):
            average("median", [({"w": torch.ones(2)}, 1), (other, 1)], 0.1)
