"""The inversion attack: learn on data of one's own to turn smashed data back into inputs.

In the form of He, Zhang and Lee 2019 ("Model inversion attacks against collaborative inference", ACSAC), where the
attacker can query the front: it knows the front and its noise's distribution, and has data of the same kind.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..core.randomness import seeded
from ..core.unit import seed_of
from .decoders import RIDGES, Decoder
from .smashed import View
from .ssim import ssim

# Samples in a batch: few where there are few samples, so that an epoch is worth its name.
SMALLEST_BATCH, LARGEST_BATCH, BATCHES = 16, 128, 16
HELD_OUT = 0.1
LEARNING_RATE = 1e-3
COMPUTED_TOGETHER = 512


@dataclass(frozen=True)
class Quality:
    """How near reconstructions are to their inputs. mse: mean squared error a value. ssim: None where inputs are not
    images."""

    mse: float
    ssim: float | None


def learn_inversion(
    view: View, x: Tensor, *, epochs: int, seed: int, on_epoch: Callable[[], object] = lambda: None
) -> Decoder:
    """A decoder trained to reconstruct `x` from `view(x)`: the best of all epochs on a tenth of `x` held out.

    Args:
        view: is called for each batch of each epoch, so that the decoder sees new noise every time.
        x: the attacker's inputs [n, *input_shape], on the device to compute on; at least 4.
        seed: decides the split, the decoder's initial weights and the order; the global generators stay as they were.
    """
    with seeded(seed_of("inversion", seed), [x]):
        checking, training = (x[positions] for positions in divided(x))
        decoder = Decoder(tuple(view(x[:2]).shape[1:]), training).to(x.device)
        begin_linear(decoder, view, training, checking)
        optimizer = torch.optim.Adam(decoder.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        best = mean_squared_error(reconstruct(decoder, view, checking), checking)
        kept = copy.deepcopy(decoder.state_dict())
        size = batch_size(len(training), SMALLEST_BATCH, LARGEST_BATCH, BATCHES)
        for _ in range(epochs):
            decoder.train()
            for batch in shuffled(len(training), size):
                inputs = training[batch.to(x.device)]
                optimizer.zero_grad()
                loss = functional.mse_loss(decoder(view(inputs)), inputs)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            schedule.step()
            error = mean_squared_error(reconstruct(decoder, view, checking), checking)
            if error < best:
                best, kept = error, copy.deepcopy(decoder.state_dict())
            on_epoch()
    decoder.load_state_dict(kept)
    return decoder


def reconstruct(decoder: Decoder, view: View, x: Tensor) -> Tensor:
    """What the decoder makes of the smashed data of `x`, [n, *input_shape]."""
    decoder.eval()
    with torch.no_grad():
        return torch.cat([decoder.within_range(view(part)) for part in torch.split(x, COMPUTED_TOGETHER)])


def quality(reconstructed: Tensor, x: Tensor, *, data_range: float) -> Quality:
    """Mean squared error and, for images [n, h, w] or [n, channels, h, w], mean SSIM."""
    if not is_image(tuple(x.shape[1:])):
        return Quality(mean_squared_error(reconstructed, x), None)
    pairs = zip(_pieces(reconstructed), _pieces(x), strict=True)
    values = torch.cat([ssim(one, other, data_range=data_range) for one, other in pairs])
    return Quality(mean_squared_error(reconstructed, x), float(values.mean()))


def mean_squared_error(reconstructed: Tensor, x: Tensor) -> float:
    """Over all values of all samples."""
    return float(functional.mse_loss(reconstructed, x))


def begin_linear(decoder: Decoder, view: View, training: Tensor, checking: Tensor) -> None:
    """Let the decoder begin with the linear reconstruction that is best on `checking`, if it has a linear map.

    For a linear front without noise it is nearly all that can be had, from far fewer samples than a network takes.
    """
    crossing = torch.cat([view(part) for part in torch.split(training, COMPUTED_TOGETHER)])
    errors = {}
    for ridge in RIDGES:
        decoder.fit_linear(crossing, training, ridge)
        errors[ridge] = mean_squared_error(reconstruct(decoder, view, checking), checking)
    decoder.fit_linear(crossing, training, min(errors, key=errors.__getitem__))


def is_image(shape: tuple[int, ...]) -> bool:
    """[h, w], or 1 or 3 channels and that; sides of 3 pixels or more, so that a window has a middle."""
    return (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))) and min(shape[-2:]) >= 3


def divided(x: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in x, at random, int64: of the samples that are held out, and of the others."""
    order = torch.randperm(len(x)).to(x.device)
    held = max(2, round(HELD_OUT * len(x)))
    return order[:held], order[held:]


def batch_size(samples: int, smallest: int, largest: int, batches: int) -> int:
    """That makes `batches` batches of the samples, within the bounds."""
    return max(smallest, min(largest, samples // batches))


def shuffled(samples: int, batch_size: int) -> list[Tensor]:
    """Positions 0 … samples - 1 in a random order, int64, in batches of nearly equal size: none has one sample alone,
    which BatchNorm could not train on."""
    return list(torch.randperm(samples).tensor_split(max(1, samples // batch_size)))


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    return torch.split(x if x.ndim == 4 else x.unsqueeze(1), COMPUTED_TOGETHER)
