"""What has to hold of any bytes that come over the wire: they are refused by a named error, or mean one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import torch

from microsfl.errors import InputError
from microsfl.wire import messages
from microsfl.wire.tensors import decode, encode, opened

KINDS: tuple[type[messages.Message], ...] = (
    messages.Forward, messages.Outputs, messages.Backward, messages.Step, messages.Gradients, messages.Predict,
    messages.Update, messages.Stored, messages.Contribution, messages.Activations,
)  # fmt: skip
# A body is small and says how large its tensors are: no answer to it may need much more memory than it has bytes.
BYTES_EACH = 16
BYTES_MORE = 1_000_000


def check(body: bytes) -> str:
    """How the wire's readers take the body: "refused", "packet", or the name of the message that it is.

    Raises:
        AssertionError: when they contradict each other.
        Exception: whatever they raise that is no InputError.
    """
    found = "refused"
    with suppress(InputError):
        packet = decode(body)
        found = "packet"
        size = sum(tensor.nbytes for tensor in packet.tensors.values())
        assert size <= BYTES_EACH * len(body) + BYTES_MORE, f"{size} bytes of tensors from {len(body)}"
        assert len(opened(body).entries) == len(packet.tensors)
        again = decode(encode(packet.tensors, packet.fields))
        assert again.fields == packet.fields
        assert again.tensors.keys() == packet.tensors.keys()
        for name, tensor in packet.tensors.items():
            other = again.tensors[name]
            assert (tensor.shape, tensor.dtype) == (other.shape, other.dtype)
            assert torch.equal(tensor, other)
    for read in _readers(body):
        with suppress(InputError):
            message = read()
            assert type(message).unpack(message.pack()).pack() == message.pack()
            found = type(message).__name__
    return found


def _readers(body: bytes) -> Iterator[Callable[[], messages.Message]]:
    for kind in KINDS:
        yield lambda kind=kind: kind.unpack(body)
    for kind in (messages.Contribution, messages.Activations, messages.Update):  # as they stand in files
        yield lambda kind=kind: kind.unpack(body, hashed=True)
