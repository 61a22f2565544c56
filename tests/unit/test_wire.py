"""The packet: golden bytes, the same as the safetensors library's, and back without loss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microsfl.core.formats import COMPRESSED, compressed, expanded
from microsfl.errors import InvalidId, MalformedMessage, MessageTooLarge, TensorMismatch
from microsfl.wire.messages import Contribution, Forward, Gradients
from microsfl.wire.tensors import DTYPES, decode, encode, opened

GOLDEN = Path(__file__).parent / "golden"


def example() -> Forward:
    """One of everything: two tensors of different dtypes, a flag, a null."""
    return Forward(
        run="demo",
        round=3,
        client="clinic-a",
        unit=7,
        batches=2,
        needs_grad=("0",),
        activations={"0": torch.tensor([[1.0, -2.5], [0.0, 4.0]]), "1": torch.tensor([[True], [False]])},
    )


def test_the_golden_bytes_are_what_this_version_writes() -> None:
    """If this fails, old and new processes no longer understand each other: raise wire.tensors.VERSION."""
    assert example().pack() == (GOLDEN / "forward.safetensors").read_bytes()


def test_the_golden_bytes_are_what_this_version_reads() -> None:
    message = Forward.unpack((GOLDEN / "forward.safetensors").read_bytes())
    assert message.key == example().key
    assert (message.batches, message.version, message.needs_grad) == (2, None, ("0",))
    assert all(torch.equal(message.activations[name], tensor) for name, tensor in example().activations.items())


def compressed_example(format_: str) -> Forward:
    """The same with its float32 tensor in fewer bits."""
    return example().model_copy(update={"activations": compressed(example().activations, format_)})


@pytest.mark.parametrize("format_", sorted(COMPRESSED))
def test_the_golden_bytes_of_compressed_tensors_are_written_and_read(format_: str) -> None:
    golden = (GOLDEN / f"forward-{format_}.safetensors").read_bytes()
    assert compressed_example(format_).pack() == golden
    found = expanded(Forward.unpack(golden).activations, format_, torch.device("cpu"))
    assert torch.allclose(found["0"], example().activations["0"], rtol=1e-2)
    assert torch.equal(found["1"], example().activations["1"])


@st.composite
def tensors(draw: Any) -> dict[str, Tensor]:
    names = draw(st.lists(st.text(min_size=1, max_size=12), max_size=5, unique=True))
    found = {}
    for name in names:
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        dtype = draw(st.sampled_from(list(DTYPES.values())))
        random = torch.Generator().manual_seed(draw(st.integers(0, 99)))
        found[name] = torch.randint(0, 2, shape, generator=random).to(dtype)
    return found


@given(tensors())
@settings(max_examples=60, deadline=None)
def test_weights_files_are_byte_equal_to_the_library_s(values: dict[str, Tensor]) -> None:
    values.pop("__metadata__", None)
    ours = encode(values)
    read = safetensors.torch.load(ours)
    assert read.keys() == values.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in values.items())
    if values:
        assert ours == safetensors.torch.save(values)


@given(tensors(), st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=4))
@settings(max_examples=60, deadline=None)
def test_decoding_gives_back_what_was_encoded(values: dict[str, Tensor], fields: dict[str, Any]) -> None:
    values.pop("__metadata__", None)
    packet = decode(encode(values, fields))
    assert packet.fields == fields
    assert packet.tensors.keys() == values.keys()
    for name, tensor in values.items():
        assert packet.tensors[name].dtype == tensor.dtype
        assert torch.equal(packet.tensors[name], tensor)


def test_strided_tensors_are_written_in_their_logical_order() -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(decode(encode({"t": matrix.t()})).tensors["t"], matrix.t())


def test_decoded_tensors_are_aligned_wherever_they_stood() -> None:
    """The reason for the copy in decode: at another alignment the same product may differ in the last bit."""
    for pad in range(1, 9):
        packet = decode(encode({"a" * pad: torch.ones(3), "b": torch.ones(5, dtype=torch.float16)}, {"x": "y" * pad}))
        assert all(tensor.data_ptr() % 64 == 0 for tensor in packet.tensors.values())


def test_messages_come_back_equal() -> None:
    sent = Contribution(
        run="r", round=1, client="c", unit=4, batches=2, samples=16, version=9,
        gradients={"w": torch.ones(2)}, buffers={"mean": torch.zeros(1)},
    )  # fmt: skip
    back = Contribution.unpack(sent.pack())
    assert back.model_dump(exclude={"gradients", "buffers"}) == sent.model_dump(exclude={"gradients", "buffers"})
    assert torch.equal(back.gradients["w"], torch.ones(2))
    assert torch.equal(back.buffers["mean"], torch.zeros(1))


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, "version"),
        ({"version": 1}, "newest"),
        ({"version": -1, "newest": 0}, "version"),
        ({"version": "1", "newest": 0}, "version"),
        ({"version": True, "newest": 0}, "version"),
        ({"version": 10**10, "newest": 0}, "version"),
        ({"version": 1, "newest": 1, "extra": 1}, "extra"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(MalformedMessage, match=names):
        Gradients.unpack(encode({}, {"type": "Gradients", **fields}))


def test_another_message_s_type_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="'Gradients' is wanted"):
        Gradients.unpack(example().pack())


def test_a_tensor_that_belongs_nowhere_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="labels"):
        Gradients.unpack(encode({"labels.0": torch.ones(1)}, {"type": "Gradients", "version": 0, "newest": 0}))


@pytest.mark.parametrize("client", ["..", "a/b", "a\0b", "", "x" * 10_000, "a..b", "-a", "a b", "é"])
def test_ids_that_cannot_be_keys_are_refused(client: str) -> None:
    fields = {"type": "Forward", "run": "r", "round": 0, "client": client, "unit": 0}
    with pytest.raises(InvalidId, match="client"):
        Forward.unpack(encode({"activations.0": torch.ones(1)}, fields))


def test_a_dtype_that_cannot_travel_is_refused_by_name() -> None:
    with pytest.raises(TensorMismatch, match="complex64"):
        encode({"odd": torch.ones(1, dtype=torch.complex64)})


# Files with a hash of themselves.


def file(**changes: Any) -> bytes:
    values: dict[str, Any] = {"run": "r", "round": 1, "client": "c", "unit": 4, "samples": 16, "version": 9}
    gradients = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
    return Contribution(**{**values, "gradients": gradients, **changes}).pack(hashed=True)


def with_digest(content: bytes) -> bytes:
    """As docs/reference/wire.md says it: XXH3-128 of the file with zeros for the hash's own digits."""
    before, mark, after = content.partition(b'"xxh3_128":"')
    assert mark
    blank = before + mark + b"0" * 32 + after[32:]
    return before + mark + xxhash.xxh3_128_hexdigest(blank).encode() + after[32:]


def test_the_hash_is_what_the_documentation_says() -> None:
    assert with_digest(file()) == file()
    assert decode(file(), hashed=True).fields["unit"] == 4


@given(place=st.integers(0, 10**4), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_a_file_of_which_one_bit_differs_is_refused(place: int, bit: int) -> None:
    content = bytearray(file())
    content[place % len(content)] ^= 1 << bit
    with pytest.raises((MalformedMessage, MessageTooLarge)):
        decode(content, hashed=True)


@pytest.mark.parametrize("hide", ['"xxh3_128":"', '"},"', "\\", '"'])
def test_no_name_and_no_text_is_taken_for_the_hash(hide: str) -> None:
    tensors = {hide: torch.ones(2), f"{hide}{'0' * 32}": torch.zeros(1)}
    packet = decode(encode(tensors, {hide: hide, "a": f"{hide}{'0' * 32}"}, hashed=True), hashed=True)
    assert packet.fields == {hide: hide, "a": f"{hide}{'0' * 32}"}
    assert all(torch.equal(packet.tensors[name], tensor) for name, tensor in tensors.items())


def rearranged(content: bytes, order: Sequence[str]) -> bytes:
    """The same packet with the entries of its header in another order, and its right hash."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    text = json.dumps({name: header[name] for name in order}, separators=(",", ":")).encode()
    return with_digest(len(text).to_bytes(8, "little") + text + content[8 + size :])


@pytest.mark.parametrize("order", list(permutations(["__metadata__", "gradients.w", "gradients.b"])), ids=str)
def test_files_are_read_alike_in_whatever_order_their_headers_are(order: Sequence[str]) -> None:
    content = rearranged(file(), order)
    assert opened(content, hashed=True)[:2] == opened(file(), hashed=True)[:2] == opened(content)[:2]


def test_a_table_with_metadata_in_it_is_refused() -> None:
    content = file(gradients={"abcd": torch.ones(2)}).replace(b'"gradients.abcd"', b'"__metadata__"  ')
    for hashed in (True, False):
        with pytest.raises(MalformedMessage, match="stands twice"):
            decode(with_digest(content), hashed=hashed)


@given(tensors())
@settings(max_examples=60, deadline=None)
def test_arrays_are_the_tensors_where_they_stand(values: dict[str, Tensor]) -> None:
    values.pop("__metadata__", None)
    found = opened(encode(values, {}, hashed=True), hashed=True)
    assert {entry.name: entry.dtype for entry in found.entries} == {name: t.dtype for name, t in values.items()}
    for entry in found.entries:
        array = entry.array(found.data)
        assert array.shape == entry.shape
        assert torch.equal(torch.from_numpy(array.copy()).double(), values[entry.name].double())
