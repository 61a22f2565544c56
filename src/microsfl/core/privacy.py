"""What smashed data is put through before it leaves a client: each sample is clipped, then noise is added.

This is the Gaussian mechanism of Abadi et al. 2016 (arXiv:1607.00133) on activations instead of gradients. It bounds
what a sample can be told by; no privacy budget is accounted for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .randomness import SecretGenerator


def protect(
    activations: Tensor,
    *,
    clip_norm: float,
    noise_std: float,
    generator: torch.Generator | SecretGenerator | None = None,
) -> Tensor:
    """Activations [samples, …], clipped and noisy; differentiable. The same object if neither is asked for, or if they
    are not of a floating dtype, as a mask is not.

    Args:
        clip_norm: largest L2 norm of one sample; a larger one is scaled down to it, and the gradient goes through the
            scaling. 0: no bound.
        noise_std: standard deviation of the noise on every number. 0: none. generator: draws it; needed then.
    """
    if not activations.is_floating_point():
        return activations
    if clip_norm:
        norms = activations.reshape(len(activations), -1).norm(dim=1)
        # A sample within the bound stays as it is, bit by bit; and the gradient at a sample of zeros is finite.
        scale = torch.where(norms > clip_norm, clip_norm / norms.clamp(min=clip_norm), 1.0)
        activations = activations * scale.reshape(-1, *[1] * (activations.ndim - 1))
    if noise_std:
        if generator is None:
            raise ValueError("Noise is drawn from a generator of its own, so that it can be drawn again; give one.")
        if isinstance(generator, SecretGenerator):
            noise = generator.normal(activations.shape, activations.dtype)
        else:
            noise = torch.randn(activations.shape, generator=generator, dtype=activations.dtype)
        activations = activations + noise_std * noise.to(activations.device)
    return activations
