"""Training a front to be of use and to tell little: a game against a decoder that tries to reconstruct the inputs.

Front f and classifier c (the model's own body and tail) minimize CE(c(z), y) - weight * e, with z = f(x) + noise and e
the error of an adversary who reconstructs x from z. There are two kinds:

network: a decoder d that minimizes MSE(d(z), x) in turn, batch by batch; e is that error. Hamm 2017, "Minimax Filter:
    Learning to Preserve Privacy from Inference Attacks" (JMLR 18). A network lags behind the front, which learns to run
    away from it rather than to hide anything; more steps of d for one of f help somewhat.
linear: e is the error of the best linear decoder of the very batch, in closed form and differentiated through. It is
    weaker as an attacker but never behind, and the front that it leaves is the better protected one, as measured by a
    fresh network (docs/guides/privacy.md has figures).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..core.cut import Chain, Parts
from ..core.randomness import seeded
from ..core.unit import seed_of
from .decoders import Decoder
from .inversion import batch_size, begin_linear, divided, mean_squared_error, reconstruct, shuffled
from .smashed import Crossing, Protection, View, as_one

DECODER_SPEED = 3.0  # its learning rate, as a multiple of the front's
# Samples in a batch: many, as a linear decoder of few samples would be a bad one; at least four batches an epoch.
SMALLEST_BATCH, LARGEST_BATCH, BATCHES = 32, 512, 4
RIDGE = 1e-4  # of the linear decoder, as a part of the mean variance of the smashed data


@dataclass(frozen=True)
class Recipe:
    """adversary: "linear" or "network". adversarial_weight: of its error in the front's loss; 0 trains for the task
    alone. decoder_steps: of the network for one of the front.
    protection: clipping and noise on the front's output, in training and testing."""

    epochs: int
    lr: float
    adversary: str
    adversarial_weight: float
    decoder_steps: int
    protection: Protection
    seed: int


@dataclass(frozen=True)
class Epoch:
    """After an epoch, on samples held out: accuracy of the classifier (fraction right), mean squared error of a
    linear decoder fitted anew (or of the network, if that is the adversary and better), and of the mean input in its
    place."""

    number: int
    accuracy: float
    decoder_mse: float
    mean_input_mse: float


def pretrain(
    parts: Parts, x: Tensor, y: Tensor, recipe: Recipe, on_epoch: Callable[[Epoch], object] = lambda _: None
) -> list[Epoch]:
    """Train `parts` in place; its front is what is wanted.

    Args:
        parts: on the device of x; the body and the tail together are the classifier.
        x, y: public samples [n, *input_shape] and labels int64 [n], at least 4. A tenth is held out for testing.

    The same arguments give the same weights on the same machine; the global generators stay as they were.
    """
    classifier = Chain({**parts.body.stages(), **parts.tail.stages()})
    with seeded(seed_of("pretrain", recipe.seed), [x]):
        testing, training = divided(x)
        view = View(parts.front, recipe.protection, seed_of("pretrain noise", recipe.seed))
        decoder = Decoder(tuple(view(x[:2]).shape[1:]), x[training]).to(x.device)
        game = _Game(view, classifier, decoder, recipe)
        size = batch_size(len(training), SMALLEST_BATCH, LARGEST_BATCH, BATCHES)
        epochs = []
        for number in range(recipe.epochs):
            for batch in shuffled(len(training), size):
                chosen = training[batch.to(x.device)]
                game.play(x[chosen], y[chosen])
            epochs.append(game.tested(number, x[training], x[testing], y[testing]))
            on_epoch(epochs[-1])
    return epochs


def best_linear_error(smashed: Tensor, x: Tensor) -> Tensor:
    """Mean squared error, scalar, of ridge regression of each sample's x on its smashed data, fitted on all the others
    of the batch: leave-one-out residuals are r_i / (1 - h_i), with h the diagonal of the hat matrix (Allen 1974).
    Differentiable in the smashed data, and no smaller if they are scaled, shifted or rotated.

    Args:
        smashed: [n, …]. x: [n, …].
    """
    # In float64: with fewer samples than features, both sides of the division are nearly nothing.
    z, wanted = smashed.flatten(1).double(), x.flatten(1).double()
    z, wanted = z - z.mean(dim=0), wanted - wanted.mean(dim=0)
    penalty = RIDGE * z.square().sum() / min(z.shape) + torch.finfo(z.dtype).tiny
    if z.shape[1] <= len(z):
        hat = z @ torch.linalg.solve(_plus(z.T @ z, penalty), z.T)
    else:  # the same matrix, from the smaller product
        hat = torch.linalg.solve(_plus(z @ z.T, penalty), z @ z.T)
    left = (1 - 1 / len(z) - hat.diagonal()).clamp_min(1e-9)  # 1 / n: the mean that was subtracted
    error: Tensor = ((wanted - hat @ wanted) / left.unsqueeze(1)).square().mean()
    return error.to(smashed.dtype)


def _plus(matrix: Tensor, penalty: Tensor) -> Tensor:
    return matrix + penalty * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


class _Game:
    def __init__(self, view: View, classifier: Chain, decoder: Decoder, recipe: Recipe) -> None:
        self.view, self.classifier, self.decoder, self.recipe = view, classifier, decoder, recipe
        self.has_network = recipe.adversary == "network"
        self.players = torch.optim.Adam([*view.front.parameters(), *classifier.parameters()], lr=recipe.lr)
        self.adversary = torch.optim.Adam(decoder.parameters(), lr=DECODER_SPEED * recipe.lr)

    def play(self, x: Tensor, y: Tensor) -> None:
        """One batch: the steps of the network, if there is one, then one of the front and the classifier."""
        for module in (self.view.front, self.classifier, self.decoder):
            module.train()
        for _ in range(self.recipe.decoder_steps if self.has_network else 0):
            error = functional.mse_loss(self.decoder(as_one(self._crossing(x)).detach()), x)
            self.adversary.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]
            self.adversary.step()
        crossing = self._crossing(x)
        loss = functional.cross_entropy(self._logits(crossing), y)
        loss = loss - self.recipe.adversarial_weight * self._adversarys_error(as_one(crossing), x)
        self.players.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.players.step()

    def tested(self, number: int, training: Tensor, x: Tensor, y: Tensor) -> Epoch:
        for module in (self.view.front, self.classifier):
            module.eval()
        with torch.no_grad():
            right = self._logits(self._crossing(x)).argmax(dim=1) == y
        linear = Decoder(tuple(self.view(x[:1]).shape[1:]), training).to(x.device)
        begin_linear(linear, self.view, training, x)
        decoders = [linear, self.decoder] if self.has_network else [linear]
        errors = [mean_squared_error(reconstruct(one, self.view, x), x) for one in decoders]
        guessed = mean_squared_error(self.decoder.mean.expand_as(x), x)
        return Epoch(number, float(right.double().mean()), min(errors), guessed)

    def _adversarys_error(self, smashed: Tensor, x: Tensor) -> Tensor:
        if not self.has_network:
            return best_linear_error(smashed, x)
        # Within the range: the front must not win by driving the decoder where no attacker would follow.
        return functional.mse_loss(self.decoder.within_range(smashed), x)

    def _crossing(self, x: Tensor) -> Crossing:
        return self.view.protection.apply(self.view.front(x), self.view.generator)

    def _logits(self, crossing: Crossing) -> Tensor:
        logits: Tensor = self.classifier(*crossing) if isinstance(crossing, tuple) else self.classifier(crossing)
        return logits
