"""Label inference: what the gradients that a client sends tell a split server about labels that never travel.

In a U-shaped cut the client answers the body's output o with dL/do. For a linear tail W and cross entropy that is
W^T (p - y) / batch, whose direction is that of the true class's row of W, negated, as long as the model is not sure of
another one: samples of one class have gradients of one direction (Li et al. 2022, "Label leakage and protection in
two-party split learning", ICLR). The attack here is the simplest that uses this: it knows the labels of a few samples,
as a split server does that also takes part as a client, and gives each other sample the label of the nearest centroid
of directions. The body's outputs themselves, which every split server computes, are attacked in the same way, so that
it can be seen what the gradients add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..core.client_side import Stepper, front_forward, tail_step
from ..core.cut import Parts
from ..core.reduce import OptimizerRule
from ..core.step import Tensors, body_forward, in_order
from ..core.unit import seed_of

KNOWN_PER_CLASS = 5


@dataclass(frozen=True)
class Exchange:
    """What a split server sees of samples in a U-shaped cut, float32 [n, features] each: the body's outputs, which it
    sends, and their gradients, which it is sent."""

    outputs: Tensor
    gradients: Tensor


@dataclass(frozen=True)
class LabelInference:
    """Fractions of labels guessed right. chance: always the most frequent class among the samples."""

    from_gradients: float
    from_outputs: float
    chance: float
    samples: int


def exchange(
    parts: Parts,
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int,
    seed: int,
    front_is_trained: bool = True,
    protected: Callable[[Tensors], Tensors] = lambda tensors: tensors,
) -> Exchange:
    """One pass of training over the samples, nothing being stepped, in batches as they would travel.

    Args:
        parts: on the device of x; front, body and tail compute as in training. y: labels int64 [n].
        front_is_trained: one that is frozen is in evaluation mode.
        protected: what the activations of each batch go through before they leave the client.
    """
    device = x.device
    tail = Stepper(parts.tail, OptimizerRule("SGD", {"lr": 1.0}), "never")
    outputs, gradients = [], []
    for number, (inputs, labels) in enumerate(zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)):
        batch = seed_of("labels", seed, number)
        activations = front_forward(parts.front, inputs, [batch], device, front_is_trained=front_is_trained)
        forward = body_forward(parts.body, protected(activations), seeds=[batch])
        wanted = forward.differentiable()
        answer = forward.answer()
        result = tail_step(tail, answer, wanted, labels, [batch])
        outputs.append(_joined(answer, wanted))
        gradients.append(_joined(result.gradients, wanted))
    return Exchange(torch.cat(outputs), torch.cat(gradients))


def infer_labels(known: Exchange, known_labels: Tensor, seen: Exchange, labels: Tensor) -> LabelInference:
    """How many of `labels` the attack finds from `seen`, given `known` with `known_labels`; labels int64 [n]."""
    counts = torch.bincount(labels)
    return LabelInference(
        from_gradients=_share_right(nearest_direction(known.gradients, known_labels, seen.gradients), labels),
        from_outputs=_share_right(nearest_direction(known.outputs, known_labels, seen.outputs), labels),
        chance=float(counts.max()) / len(labels),
        samples=len(labels),
    )


def nearest_direction(known: Tensor, known_labels: Tensor, seen: Tensor) -> Tensor:
    """For each row of `seen`, the label whose centroid of directions is nearest in angle, int64 [m].

    Args:
        known: [n, features] with their labels int64 [n]; a label without a row is never given. seen: [m, features].
    """
    kinds = torch.unique(known_labels)
    directions = functional.normalize(known)
    centroids = torch.stack([directions[known_labels == kind].mean(dim=0) for kind in kinds])
    nearest = (functional.normalize(seen) @ functional.normalize(centroids).T).argmax(dim=1)
    guessed: Tensor = kinds[nearest]
    return guessed


def few_of_each(labels: Tensor, count: int = KNOWN_PER_CLASS) -> Tensor:
    """Positions of the first `count` samples of each class that has any, int64, ascending."""
    chosen = [torch.nonzero(labels == kind).flatten()[:count] for kind in torch.unique(labels)]
    return torch.cat(chosen).sort().values


def _joined(tensors: Tensors, names: list[str]) -> Tensor:
    return torch.cat([tensors[name].flatten(1).float() for name in in_order(names)], dim=1)


def _share_right(guessed: Tensor, labels: Tensor) -> float:
    return float((guessed == labels).double().mean())
