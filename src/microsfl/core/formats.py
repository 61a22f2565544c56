"""float32 tensors that cross a cut, in fewer bits: bfloat16, float16, and int8 with a scale for each channel.

What is not float32 (a mask, whole numbers, floats of another width) crosses as it is. A compressed tensor says by its
name what it is: "0" crosses as "0.bfloat16", or as "0.float16" or "0.int8" beside its "0.scale".

bfloat16: rounded to 8 bits of precision; the range is that of float32.
float16: 11 bits, after a division by a power of two that brings the largest number of the tensor just below 2^15, so
    that nothing overflows and small gradients are not lost: the scaling of Micikevicius et al. 2018 (arXiv:1710.03740,
    section 3.2), of each tensor instead of the loss. scale: float32 [].
int8: x / scale rounded to -127…127, with scale = max|x| / 127 over a channel, as the weights in Jacob et al. 2018
    (arXiv:1712.05877, section 3), symmetric and so without a zero point. A channel is an index of dimension 1: a
    feature of [n, features], a channel of [n, channels, height, width]; a tensor without that dimension is one channel.
    scale: float32 [channels].
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import NotFinite, TensorMismatch

Tensors = dict[str, Tensor]

FLOAT32 = "float32"  # as it is
COMPRESSED = {"bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
SCALE = "scale"

_LARGEST = torch.finfo(torch.float32).max
# With a larger scale, a number that the format can hold would become infinite.
_LARGEST_SCALE = {"float16": _LARGEST / torch.finfo(torch.float16).max, "int8": _LARGEST / 128}
_FLOAT16_EXPONENT = 15  # 2^15 is half of what float16 holds, so that rounding up does not overflow


def compress(tensor: Tensor, format_: str, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
    """A float32 tensor in one of the formats `COMPRESSED`, and its scale where the format has one.

    Args:
        generator: on the CPU; int8 is rounded up or down with it, at random and right in the mean, instead of to
            the nearest: Gupta et al. 2015 (arXiv:1502.02551, section 3).
    """
    if format_ == "int8":
        scale = _largest(tensor) / 127
        steps = tensor / _along_channels(torch.where(scale > 0, scale, 1.0), tensor)
        if generator is None:
            steps = steps.round_()
        else:
            steps = steps.add_(torch.rand(steps.shape, generator=generator).to(steps.device)).floor_()
        return steps.clamp_(-127, 127).to(torch.int8), scale
    if format_ == "float16":
        largest = tensor.abs().amax() if tensor.numel() else tensor.new_zeros(())
        # Clamped so that the scale and its reciprocal are both normal float32 numbers.
        exponent = torch.frexp(largest).exponent.clamp(-111, 128) - _FLOAT16_EXPONENT
        return (tensor * _power_of_two(-exponent)).to(torch.float16), _power_of_two(exponent)
    return tensor.to(COMPRESSED[format_]), None


def expand(tensor: Tensor, scale: Tensor | None) -> Tensor:
    """What `compress` made, as float32."""
    wide = tensor.to(torch.float32)
    return wide if scale is None else wide.mul_(_along_channels(scale, wide))


def compressed(tensors: Tensors, format_: str, generator: torch.Generator | None = None) -> Tensors:
    """Tensors that cross a cut, by name, as they travel in such a format. generator: see `compress`."""
    if format_ == FLOAT32:
        return tensors
    found: Tensors = {}
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            found[name] = tensor
            continue
        found[f"{name}.{format_}"], scale = compress(tensor.detach(), format_, generator)
        if scale is not None:
            found[f"{name}.{SCALE}"] = scale
    return found


def expanded(tensors: Mapping[str, Tensor], format_: str, device: torch.device) -> Tensors:
    """What `compressed` made with this format, on `device`.

    Raises:
        TensorMismatch: when a tensor travels in another format, or is not what its name says, or has no scale that
            fits. NotFinite: when its numbers would be too large for float32.
    """
    found: Tensors = {}
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        is_compressed = bool(stem) and kind in COMPRESSED
        if stem and kind == SCALE:
            if f"{stem}.{format_}" not in tensors or format_ not in _LARGEST_SCALE:
                raise TensorMismatch(f"'{name}' is the scale of no tensor that has one.")
            continue
        if (kind != format_) if is_compressed else (tensor.dtype == torch.float32 and format_ != FLOAT32):
            came = kind if is_compressed else FLOAT32
            raise TensorMismatch(f"'{stem if is_compressed else name}' travels as {came}; in this run as {format_}.")
        known = stem if is_compressed else name
        if known in found:
            raise TensorMismatch(f"'{known}' came twice, once compressed.")
        if is_compressed:
            scale = _scale(tensors, stem, format_)
            tensor = expand(tensor.to(device), None if scale is None else scale.to(device))
        found[known] = tensor.to(device)
    return found


def size_bytes(tensors: Mapping[str, Tensor], format_: str, *, scales: bool = True) -> int:
    """Of the elements, as they travel in such a format, and of their scales."""
    return sum(_size_bytes(tensor, format_, scales=scales) for tensor in tensors.values())


class ErrorFeedback:
    """Gradients of one unit after another in a format, each with what rounding has taken from those before.

    Seide et al. 2014 (1-bit stochastic gradient descent), Karimireddy et al. 2019 (arXiv:1901.09847). Rows of different
    units are different samples; what is made up for is the sum over them, which is what the body's step is taken on.

    Args:
        is_on: false compresses and remembers nothing.
    """

    def __init__(self, format_: str, *, is_on: bool) -> None:
        self.format = format_
        self.is_on = is_on and format_ != FLOAT32
        self._missing: Tensors = {}

    def forget(self) -> None:
        """Begin anew, as each round does."""
        self._missing = {}

    def compressed(self, gradients: Tensors) -> Tensors:
        """As `compressed`. Where the shape is another than the last unit's, what that one lacked is lost."""
        if not self.is_on:
            return compressed(gradients, self.format)
        wanted = {name: self._with_missing(name, tensor) for name, tensor in gradients.items()}
        sent = compressed(wanted, self.format)
        for name, tensor in wanted.items():
            if tensor.dtype == torch.float32:
                arrives = expand(sent[f"{name}.{self.format}"], sent.get(f"{name}.{SCALE}"))
                self._missing[name] = tensor - arrives
        return sent

    def _with_missing(self, name: str, tensor: Tensor) -> Tensor:
        missing = self._missing.get(name)
        return tensor if missing is None or missing.shape != tensor.shape else tensor + missing


def _scale(tensors: Mapping[str, Tensor], name: str, format_: str) -> Tensor | None:
    """The scale of a compressed tensor, once both are what they should be."""
    tensor, scale = tensors[f"{name}.{format_}"], tensors.get(f"{name}.{SCALE}")
    if tensor.dtype != COMPRESSED[format_]:
        raise TensorMismatch(f"'{name}.{format_}' is {tensor.dtype}.")
    if format_ not in _LARGEST_SCALE:
        return None
    shape = _scale_shape(tensor, format_)
    if scale is None or scale.dtype != torch.float32 or scale.shape != shape:
        came = "none" if scale is None else f"{scale.dtype}{list(scale.shape)}"
        raise TensorMismatch(f"'{name}.{format_}' needs a scale float32{list(shape)}; it has {came}.")
    if scale.numel():
        low, high = (float(end) for end in torch.aminmax(scale))
        if low < 0:
            raise TensorMismatch(f"'{name}.{SCALE}' is negative.")
        if not high <= _LARGEST_SCALE[format_]:
            raise NotFinite(f"'{name}' has numbers that are too large for {format_}.")
    return scale


def _scale_shape(tensor: Tensor, format_: str) -> tuple[int, ...]:
    return (_channels(tensor),) if format_ == "int8" else ()


def _size_bytes(tensor: Tensor, format_: str, *, scales: bool) -> int:
    if format_ == FLOAT32 or tensor.dtype != torch.float32:
        return tensor.nbytes
    count = math.prod(_scale_shape(tensor, format_)) if scales and format_ in _LARGEST_SCALE else 0
    return tensor.numel() * COMPRESSED[format_].itemsize + 4 * count


def _power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent for whole numbers in -126…127, put together of its bits: no logarithm could round it."""
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


def _largest(tensor: Tensor) -> Tensor:
    """max|x| of each channel, [channels]."""
    if not tensor.numel():
        return tensor.new_zeros(_channels(tensor))
    others = [dimension for dimension in range(tensor.ndim) if dimension != 1]
    return tensor.abs().amax(others).reshape(_channels(tensor))


def _channels(tensor: Tensor) -> int:
    return tensor.shape[1] if tensor.ndim > 1 else 1


def _along_channels(scale: Tensor, tensor: Tensor) -> Tensor:
    if not scale.ndim:
        return scale
    return scale.reshape(1, -1, *[1] * (tensor.ndim - 2)) if tensor.ndim > 1 else scale.reshape([1] * tensor.ndim)
