"""float32 tensors in fewer bits: what is lost is bounded, and what rounding took is made up for."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microsfl.core.formats import COMPRESSED, ErrorFeedback, compress, compressed, expand, expanded, size_bytes
from microsfl.core.randomness import generator
from microsfl.launch.preflight import resolve
from microsfl.spec import RunSpec
from microsfl.spec.tables import WireFormat
from microsfl.wire.messages import Gradients

CPU = torch.device("cpu")
FINITE = st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False)
format_ = pytest.mark.parametrize("format_", sorted(COMPRESSED))


@st.composite
def tensors(draw: Any, numbers: st.SearchStrategy[float] = FINITE) -> Tensor:
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    values = draw(st.lists(numbers, min_size=math.prod(shape), max_size=math.prod(shape)))
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


def travelled(tensor: Tensor, format_: str, random: torch.Generator | None = None) -> Tensor:
    return expand(*compress(tensor, format_, random))


def off(tensor: Tensor, other: Tensor) -> Tensor:
    return (tensor.double() - other.double()).abs()


def scale_of(tensor: Tensor) -> Tensor:
    """For each number, that of its channel."""
    scale = compress(tensor, "int8")[1]
    assert scale is not None
    return (scale.reshape(1, -1, *[1] * (tensor.ndim - 2)) if tensor.ndim > 1 else scale).double()


def test_the_specification_knows_the_same_formats() -> None:
    assert get_args(WireFormat) == ("float32", *COMPRESSED)


@given(tensors())
@settings(deadline=None)
def test_bfloat16_is_off_by_at_most_a_256th(tensor: Tensor) -> None:
    assert (off(tensor, travelled(tensor, "bfloat16")) <= 2.0**-8 * tensor.double().abs() + 2.0**-133).all()


@given(tensors(st.floats(-(2.0**126), 2.0**126, width=32, allow_subnormal=False)))
@settings(deadline=None)
def test_float16_is_off_by_at_most_a_2048th_or_by_2_to_the_minus_39th_of_the_largest(tensor: Tensor) -> None:
    allowed = torch.maximum(2.0**-11 * tensor.double().abs(), 2.0**-39 * tensor.double().abs().max())
    assert (off(tensor, travelled(tensor, "float16")) <= allowed + 2.0**-150).all()


@given(tensors())
@settings(deadline=None)
def test_int8_is_off_by_at_most_half_a_scale(tensor: Tensor) -> None:
    scale = scale_of(tensor)
    # The quotient and the product are each rounded to float32 themselves; 2^-149 is the smallest number that it has.
    assert (off(tensor, travelled(tensor, "int8")) <= (0.5 + 127 * 2.0**-23) * scale + 64 * 2.0**-149).all()


@given(tensors(), st.integers(0, 2**32))
@settings(deadline=None)
def test_int8_at_random_is_off_by_less_than_a_scale(tensor: Tensor, seed: int) -> None:
    scale = scale_of(tensor)
    arrived = travelled(tensor, "int8", generator(seed))
    assert (off(tensor, arrived) <= (1 + 127 * 2.0**-22) * scale + 128 * 2.0**-149).all()
    assert torch.equal(arrived, travelled(tensor, "int8", generator(seed)))


def test_int8_at_random_is_right_in_the_mean() -> None:
    """To the nearest, all of them would be rounded to 0."""
    tensor = torch.full((10_000, 1), 0.3)
    tensor[0] = 127.0
    assert travelled(tensor, "int8")[1:].abs().max() == 0
    assert travelled(tensor, "int8", generator(0))[1:].mean().item() == pytest.approx(0.3, abs=0.02)


@format_
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_what_travelled_once_travels_again_without_loss(format_: str, data: Any) -> None:
    """Each format is exact on what it can hold; int8 up to the rounding of its scale."""
    once = travelled(data.draw(tensors(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False))), format_)
    again = travelled(once, format_)
    if format_ == "int8":
        assert (off(once, again) <= 1e-5 * scale_of(once) + 128 * 2.0**-149).all()
    else:
        assert torch.equal(once, again)


@format_
def test_zeros_stay_zeros(format_: str) -> None:
    for shape in ((), (0,), (3,), (4, 0), (4, 3), (2, 3, 4, 4)):
        tensor = torch.zeros(shape)
        assert torch.equal(travelled(tensor, format_), tensor)


def test_float16_neither_overflows_nor_loses_small_gradients() -> None:
    """Without its scale, the first would be infinite and the second zero."""
    large, small = torch.tensor([[1e6, -3.0]]), torch.tensor([[1e-9, 2e-10]])
    assert torch.allclose(travelled(large, "float16"), large, rtol=2.0**-11)
    assert torch.allclose(travelled(small, "float16"), small, rtol=2.0**-11, atol=0)


def test_a_channel_of_int8_is_an_index_of_dimension_1() -> None:
    tensor = torch.zeros(2, 3, 4, 4)
    tensor[:, 0], tensor[:, 1], tensor[1, 2, 3, 3] = 1e-3, 1.0, -1e3
    packed, scale = compress(tensor, "int8")
    assert scale is not None
    assert torch.equal(scale, torch.tensor([1e-3, 1.0, 1e3]) / 127)
    assert packed.dtype == torch.int8
    assert torch.allclose(expand(packed, scale), tensor)


@format_
def test_only_float32_is_compressed(format_: str) -> None:
    sent: dict[str, Tensor] = {
        "0": torch.randn(4, 3), "1": torch.randn(4, 3) > 0, "2": torch.arange(4), "3": torch.randn(4).double(),
        "4": torch.randn(4, 3).bfloat16(), "5": torch.randn(4, 3).half(),
    }  # fmt: skip
    on_the_wire = compressed(sent, format_)
    assert "0" not in on_the_wire
    assert on_the_wire[f"0.{format_}"].dtype == COMPRESSED[format_]
    arrived = expanded(on_the_wire, format_, CPU)
    assert arrived.keys() == sent.keys()
    assert arrived["0"].dtype == torch.float32
    assert all(torch.equal(arrived[name], sent[name]) for name in ("1", "2", "3", "4", "5"))


def test_float32_is_sent_as_it_is() -> None:
    sent = {"0": torch.randn(4, 3), "mask": torch.ones(4, dtype=torch.bool)}
    assert expanded(compressed(sent, "float32"), "float32", CPU) == sent


@format_
def test_sizes_are_those_of_what_travels(format_: str) -> None:
    sent = {"0": torch.randn(4, 3, 2, 2), "1": torch.randn(5), "2": torch.randn(4, 3) > 0}
    assert size_bytes(sent, format_) == sum(tensor.nbytes for tensor in compressed(sent, format_).values())
    assert size_bytes(sent, "float32") == sum(tensor.nbytes for tensor in sent.values())


def test_units_are_sized_by_what_travels() -> None:
    """The larger ones of a run that compresses are as long on the wire."""
    units = []
    for wire in ({}, {"activations": "bfloat16"}, {"activations": "int8"}):
        spec = RunSpec.parse({"strategy": {"front_update": "never"}, "data": {"batch_size": 128}, "wire": wire})
        units.append(resolve(spec).strategy.unit)
    assert units == [units[0], 2 * units[0], 4 * units[0]]


@format_
def test_it_survives_a_message(format_: str) -> None:
    sent = {"0": torch.randn(4, 3), "1": torch.randn(4, 3) > 0}
    body = Gradients(version=0, newest=0, gradients=compressed(sent, format_)).pack()
    arrived = expanded(Gradients.unpack(body).gradients, format_, CPU)
    assert torch.equal(arrived["0"], travelled(sent["0"], format_))
    assert torch.equal(arrived["1"], sent["1"])


@format_
@given(seed=st.integers(0, 2**32), units=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_with_error_feedback_all_units_together_lack_only_what_the_last_one_lacked(
    format_: str, seed: int, units: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    feedback = ErrorFeedback(format_, is_on=True)
    meant, arrived, last = torch.zeros(4, 3).double(), torch.zeros(4, 3).double(), torch.zeros(4, 3)
    for _ in range(units):
        last = torch.randn(4, 3, generator=random)
        meant += last
        arrived += expanded(feedback.compressed({"0": last}), format_, CPU)["0"]
    assert (meant - arrived).abs().max() <= 0.51 / 127 * (last.abs().max() + 0.1)


@format_
def test_without_error_feedback_the_loss_grows_with_the_units(format_: str) -> None:
    """The test of the test."""
    one = torch.tensor([[1.0, 0.0017], [0.3, 0.0013]])
    lacking = {}
    for is_on in (True, False):
        feedback, arrived = ErrorFeedback(format_, is_on=is_on), torch.zeros(2, 2).double()
        for _ in range(64):
            arrived += expanded(feedback.compressed({"0": one}), format_, CPU)["0"]
        lacking[is_on] = (64 * one.double() - arrived).abs().max().item()
    assert lacking[False] > 10 * lacking[True]


def test_error_feedback_forgets_at_a_new_round_and_where_shapes_differ() -> None:
    one, two = torch.tensor([[1.0, 0.0017]]), torch.tensor([[1.0, 0.0017], [2.0, 0.3]])
    feedback = ErrorFeedback("int8", is_on=True)
    feedback.compressed({"0": one})
    assert equal(feedback.compressed({"0": two}), compressed({"0": two}, "int8"))
    again = feedback.compressed({"0": two})
    assert not equal(again, compressed({"0": two}, "int8"))
    feedback.forget()
    assert equal(feedback.compressed({"0": two}), compressed({"0": two}, "int8"))


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
