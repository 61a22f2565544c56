"""Random numbers that depend on a unit's key and on nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


@contextmanager
def seeded(seed: int, tensors: Iterable[Tensor]) -> Iterator[None]:
    """Seed torch's generators as `torch.manual_seed` does, for the CPU and the CUDA devices of `tensors`; put their
    state back afterwards.

    torch's own `manual_seed` and `fork_rng` reach for every kind of device there is, which takes half a millisecond
    and more: as long as a small unit's whole computation.
    """
    cpu = torch.default_generator
    before = cpu.get_state()
    devices = {tensor.device.index or 0 for tensor in tensors if tensor.device.type == "cuda"}
    before_cuda = {device: torch.cuda.get_rng_state(device) for device in devices}
    cpu.manual_seed(seed)
    for device in devices:
        torch.cuda.default_generators[device].manual_seed(seed)
    try:
        yield
    finally:
        cpu.set_state(before)
        for device, state in before_cuda.items():
            torch.cuda.set_rng_state(state, device)


def generator(seed: int) -> torch.Generator:
    """A generator of its own on the CPU, whose numbers are the same for whatever device they are meant."""
    return torch.Generator().manual_seed(seed)


class SecretGenerator:
    """Normal numbers on the CPU that nobody can draw who does not know the key.

    torch's own generators are no secret, however long their seed: they use 32 bits of it, which can all be tried, and
    show their state to whoever sees enough numbers. These come out of SHAKE-256.

    Args:
        key: as long as it is to be hard to guess. context: what tells apart generators of one key; any parts.
    """

    def __init__(self, key: bytes, *context: object) -> None:
        text = "\x1f".join(str(part) for part in context).encode()
        self._seed = hashlib.sha256(len(key).to_bytes(8, "big") + key + text).digest()
        self._drawn = 0  # tensors

    def normal(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Standard normal numbers, by Box and Muller's transform in float64; each call draws new ones."""
        count = math.prod(shape)
        half = (count + 1) // 2
        stream = hashlib.shake_256(self._seed + self._drawn.to_bytes(8, "big")).digest(16 * half)
        self._drawn += 1
        uniform = (np.frombuffer(stream, dtype="<u8") >> np.uint64(11)) * 2.0**-53  # [0, 1)
        radius, angle = np.sqrt(-2.0 * np.log1p(-uniform[:half])), 2.0 * np.pi * uniform[half:]
        numbers = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
        return torch.from_numpy(numbers).to(dtype).reshape(*shape)
