"""Hostile bodies: each is refused by a named error, and nothing else happens."""

from __future__ import annotations

import json
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.errors import InputError, MalformedMessage, MessageTooLarge, NotFinite
from microsfl.wire.messages import Forward
from microsfl.wire.tensors import HEADER_LIMIT_BYTES, TENSOR_LIMIT, decode, encode

F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def packet(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


MALFORMED = {
    "empty": b"",
    "seven bytes": b"\x01" * 7,
    "header longer than the body": packet({}, size=900_000),
    "not JSON": packet(b"{]"),
    "a list": packet(b"[]"),
    "not text": packet(b"{\xff\xfe}"),
    "nested too deep": packet(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a name twice": packet(b'{"a":' + json.dumps(F32).encode() + b',"a":' + json.dumps(F32).encode() + b"}", b"\0" * 4),
    "NaN in the header": packet(b'{"a":NaN}'),
    "entry is a number": packet({"a": 1}),
    "entry lacks a key": packet({"a": {"dtype": "F32", "shape": [1]}}),
    "entry has a further key": packet({"a": {**F32, "x": 1}}, b"\0" * 4),
    "unknown dtype": packet({"a": {**F32, "dtype": "F128"}}, b"\0" * 4),
    "dtype is a list": packet({"a": {**F32, "dtype": []}}, b"\0" * 4),
    "negative dimension": packet({"a": {**F32, "shape": [-1]}}, b"\0" * 4),
    "dimension is true": packet({"a": {**F32, "shape": [True]}}, b"\0" * 4),
    "dimension is a fraction": packet({"a": {**F32, "shape": [1.0]}}, b"\0" * 4),
    "product overflows 64 bits": packet({"a": {**F32, "shape": [2**62, 2**62, 4]}}, b"\0" * 4),
    "zero times huge": packet({"a": {"dtype": "F32", "shape": [0, 2**64], "data_offsets": [0, 0]}}),
    "nine dimensions": packet({"a": {**F32, "shape": [1] * 9}}, b"\0" * 4),
    "offsets overlap": packet({"a": F32, "b": F32}, b"\0" * 4),
    "a gap": packet({"a": {**F32, "data_offsets": [4, 8]}}, b"\0" * 8),
    "offsets backwards": packet({"a": {**F32, "shape": [0], "data_offsets": [4, 0]}}, b"\0" * 4),
    "data too short": packet({"a": F32}, b"\0" * 3),
    "data too long": packet({"a": F32}, b"\0" * 5),
    "huge offsets": packet({"a": {**F32, "data_offsets": [2**63 - 5, 2**63 - 1]}}, b"\0" * 4),
    "empty name": packet({"": F32}, b"\0" * 4),
    "name of 10,000 characters": packet({"a" * 10_000: F32}, b"\0" * 4),
    "metadata is a list": packet({"__metadata__": []}),
    "metadata holds a number": packet({"__metadata__": {"microsfl": 1}}),
    "fields are not JSON": packet({"__metadata__": {"microsfl": "2", "fields": "{"}}),
    "fields are a list": packet({"__metadata__": {"microsfl": "2", "fields": "[]"}}),
    "fields hold an infinity": packet({"__metadata__": {"microsfl": "2", "fields": '{"a": Infinity}'}}),
    "fields hold a number over all bounds": packet({"__metadata__": {"microsfl": "2", "fields": '{"a": 1e999}'}}),
    "a field has half a character": packet({"__metadata__": {"microsfl": "2", "fields": '{"a": "\\ud800"}'}}),
    "a name has half a character": packet({"a\ud800": F32}, b"\0" * 4),
    "fields name a field twice": packet({"__metadata__": {"microsfl": "2", "fields": '{"a": 1, "a": 2}'}}),
    "another format version": packet({"__metadata__": {"microsfl": "1", "fields": "{}"}}),
    "a pickle": b"\x80\x04\x95" + b"\0" * 60,
}  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bodies_are_refused(body: bytes) -> None:
    with pytest.raises((MalformedMessage, MessageTooLarge)):
        decode(body)


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_and_so_they_are_as_messages(body: bytes) -> None:
    with pytest.raises(InputError):
        Forward.unpack(body)


def test_a_header_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(MessageTooLarge, match=str(HEADER_LIMIT_BYTES)):
        decode(packet({}, size=2**63))


def test_too_many_tensors_are_refused() -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    with pytest.raises(MessageTooLarge, match=str(TENSOR_LIMIT)):
        decode(packet({str(i): entry for i in range(TENSOR_LIMIT + 1)}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused_by_name(dtype: torch.dtype, value: float) -> None:
    tensor = torch.zeros(3, 5, dtype=dtype)
    tensor[2, 4] = value
    with pytest.raises(NotFinite, match="weird"):
        decode(encode({"fine": torch.ones(2), "weird": tensor}))


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_never_anything_but_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        Forward.unpack(body)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_one_changed_byte_is_refused_or_read_as_the_library_reads_it(data: Any) -> None:
    """Differential: whatever we accept, the safetensors library accepts with the same tensors."""
    good = bytearray(encode({"a": torch.arange(4.0), "b": torch.ones(2, 2, dtype=torch.int16)}))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        ours = decode(bytes(good)).tensors
    except InputError:
        return
    theirs = safetensors.torch.load(bytes(good))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@given(st.integers(0, 500))
@settings(max_examples=100, deadline=None)
def test_a_truncated_message_is_refused(length: int) -> None:
    whole = Forward(run="r", round=0, client="c", unit=0, activations={"0": torch.ones(40)}).pack()
    with pytest.raises(InputError):
        Forward.unpack(whole[: min(length, len(whole) - 1)])
