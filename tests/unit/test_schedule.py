"""Factors of the learning rates over the rounds."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microsfl.core.schedule import Schedule

counts = st.integers(1, 60)


@given(st.sampled_from(["constant", "cosine", "step"]), counts, st.data())
def test_factors_rise_in_the_warm_up_and_never_after_it(kind: str, rounds: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, rounds))
    factor = data.draw(st.floats(0.1, 1.0))
    schedule = Schedule(kind, rounds, warmup, data.draw(counts), factor)
    factors = [schedule.factor(round_) for round_ in range(2 * rounds)]
    assert all(0.0 < one <= 1.0 for one in factors)
    rising, falling = factors[:warmup], factors[warmup:]
    assert rising == [(number + 1) / warmup for number in range(warmup)]
    assert all(one >= after for one, after in itertools.pairwise(falling))


@given(counts, st.data())
def test_the_cosine_spans_the_rounds_after_the_warm_up(rounds: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, rounds - 1))
    schedule, span = Schedule("cosine", rounds, warmup), rounds - warmup
    assert schedule.factor(warmup) == 1.0
    for done in range(span):  # symmetric about the middle, by the cosine itself
        assert schedule.factor(warmup + done) == pytest.approx((1 + math.cos(math.pi * done / span)) / 2)
        assert done == 0 or schedule.factor(warmup + done) + schedule.factor(rounds - done) == pytest.approx(1.0)
    assert schedule.factor(rounds + 100) == schedule.factor(rounds - 1) > 0.0  # more rounds than were planned


def test_constant_is_exactly_one_and_step_falls_by_its_factor() -> None:
    constant, step = Schedule("constant", 20), Schedule("step", 20, step_rounds=5, step_factor=0.5)
    assert [constant.factor(round_) for round_ in range(20)] == [1.0] * 20
    assert [step.factor(round_) for round_ in (0, 4, 5, 9, 10, 15)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.125]
    with pytest.raises(ValueError, match="linear"):
        Schedule("linear", 20).factor(0)
