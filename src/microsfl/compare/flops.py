"""Floating-point operations of training, counted by torch while two samples go through the parts.

torch counts matrix products and convolutions, forward and backward, two operations a multiply-add; activations,
normalizations, losses and optimizers, which are small beside them, count nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ..core.cut import Parts
from ..core.partition import batches
from ..core.randomness import seeded
from ..spec import RunSpec

SAMPLES = 2  # BatchNorm cannot train on one

Tuple = tuple[Tensor, ...]


@dataclass(frozen=True)
class Flops:
    """Operations for one training sample, forward and backward.

    per_batch: of a client for each sample it trains on. per_sent: in addition, for each that it sends to the body.
    server: of the body for each that it gets. whole: of the same training with all parts in one place.
    """

    per_batch: float
    per_sent: float
    server: float
    whole: float

    def spared(self, samples: int, sent: int) -> float:
        """The share of the whole training's operations that the clients did not have to do."""
        whole = self.whole * samples
        return 1 - (self.per_batch * samples + self.per_sent * sent) / whole if whole else 0.0


def count_flops(spec: RunSpec, parts: Parts, auxiliary: nn.Module | None = None) -> Flops:
    """Operations for a sample of a run.

    Args:
        spec: resolved. parts: as clients and split servers have them. auxiliary: the head that a client trains its
            front on, where the strategy has one.
    """
    if not isinstance(spec.model.input_shape, tuple):
        raise TypeError("the specification is not resolved")
    trained = spec.strategy.front_update != "never"
    for part in (parts.front, parts.body, parts.tail, *([auxiliary] if auxiliary is not None else [])):
        part.train()
    parts.front.train(trained).requires_grad_(trained)
    with seeded(0, ()):
        x = torch.zeros(SAMPLES, *spec.model.input_shape)
        front, activations = _pass(parts.front, (x,), ())
        crossing = tuple(i for i, one in enumerate(activations) if trained and one.is_floating_point())
        body, outputs = _pass(parts.body, activations, crossing if auxiliary is None else ())
        whole_body = _pass(parts.body, activations, crossing)[0]
        back = (
            tuple(i for i, one in enumerate(outputs) if one.is_floating_point()) if spec.strategy.traits.split else ()
        )
        tail, _ = _pass(parts.tail, outputs, back)
        head = 0.0 if auxiliary is None else _pass(auxiliary, [activations[i] for i in crossing[:1]], (0,))[0]
    if auxiliary is None:
        return Flops(front + tail, 0.0, body, front + whole_body + tail)
    return Flops(front + head, tail, body, front + whole_body + tail)


def sent_samples(spec: RunSpec, samples: int) -> int:
    """Of `samples` that a client trained on in a round, how many it sent to the body."""
    strategy = spec.strategy
    if not strategy.traits.split:
        return 0
    if not strategy.traits.auxiliary:
        return samples
    own = samples // strategy.local_epochs
    order = batches(own, batch_size=spec.data.batch_size, epochs=strategy.local_epochs, seed=0)
    return sum(len(batch) for batch in order[:: strategy.send_every])


def _pass(part: nn.Module, inputs: Sequence[Tensor], needs_grad: Sequence[int]) -> tuple[float, Tuple]:
    """Operations a sample of forward and backward, and the outputs without their graph."""
    leaves = tuple(one.detach().requires_grad_(i in needs_grad) for i, one in enumerate(inputs))

    def run() -> Tuple:
        found = part(*leaves)
        outputs: Tuple = found if isinstance(found, tuple) else (found,)
        ends = [one for one in outputs if one.requires_grad]
        if ends:  # torch's counter follows no autograd.grad
            torch.autograd.backward([_scalar(one) for one in ends])
        return outputs

    counted, outputs = _counted(run)
    part.zero_grad()
    return counted / SAMPLES, tuple(one.detach() for one in outputs)


def _scalar(output: Tensor) -> Tensor:
    """Any loss will do: its own operations are not counted."""
    return functional.mse_loss(output, torch.zeros_like(output))


def _counted(run: Callable[[], Tuple]) -> tuple[int, Tuple]:
    with FlopCounterMode(display=False) as counter:
        outputs = run()
    return counter.get_total_flops(), outputs
