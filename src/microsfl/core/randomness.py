"""Random numbers that depend on a unit's key and on nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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
