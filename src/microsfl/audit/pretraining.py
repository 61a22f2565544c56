"""Training a front to be of use and to tell little: a game against a decoder that tries to reconstruct the inputs.

Front f, classifier c (the model's own body and tail) and decoder d play, batch by batch, with z = f(x) + noise:

    d minimizes          MSE(d(z), x)                          in several steps
    f and c minimize     CE(c(z), y) - weight * MSE(d(z), x)   in one

After Hamm 2017, "Minimax Filter: Learning to Preserve Privacy from Inference Attacks" (JMLR 18). Several steps of the
decoder for one of the front matter: against a decoder that cannot keep up, the front learns to run away from it and
hides nothing from one that comes later. What a later one makes of the finished front is not known from this game in any
case: `microsfl audit-privacy` trains a fresh decoder to see.
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
from .inversion import HELD_OUT, mean_squared_error, reconstruct, shuffled
from .smashed import Crossing, Protection, View, as_one

DECODER_SPEED = 3.0  # its learning rate, as a multiple of the front's


@dataclass(frozen=True)
class Recipe:
    """adversarial_weight: of the decoder's error in the front's loss; 0 trains for the task alone.
    decoder_steps: of the decoder for one of the front.
    protection: clipping and noise on the front's output, in training and testing."""

    epochs: int
    lr: float
    adversarial_weight: float
    decoder_steps: int
    protection: Protection
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Epoch:
    """After an epoch, on samples held out: accuracy of the classifier (fraction right), mean squared error of the
    decoder, and of the mean input in its place."""

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
        order = torch.randperm(len(x)).to(x.device)
        held = max(2, round(HELD_OUT * len(x)))
        testing, training = order[:held], order[held:]
        view = View(parts.front, recipe.protection, seed_of("pretrain noise", recipe.seed))
        decoder = Decoder(tuple(view(x[:2]).shape[1:]), x[training]).to(x.device)
        game = _Game(view, classifier, decoder, recipe)
        epochs = []
        for number in range(recipe.epochs):
            for batch in shuffled(len(training), recipe.batch_size):
                chosen = training[batch.to(x.device)]
                game.play(x[chosen], y[chosen])
            epochs.append(game.tested(number, x[testing], y[testing]))
            on_epoch(epochs[-1])
    return epochs


class _Game:
    def __init__(self, view: View, classifier: Chain, decoder: Decoder, recipe: Recipe) -> None:
        self.view, self.classifier, self.decoder, self.recipe = view, classifier, decoder, recipe
        self.players = torch.optim.Adam([*view.front.parameters(), *classifier.parameters()], lr=recipe.lr)
        self.adversary = torch.optim.Adam(decoder.parameters(), lr=DECODER_SPEED * recipe.lr)

    def play(self, x: Tensor, y: Tensor) -> None:
        """One batch: the steps of the decoder, then one of the front and the classifier."""
        for module in (self.view.front, self.classifier, self.decoder):
            module.train()
        for _ in range(self.recipe.decoder_steps):
            error = functional.mse_loss(self.decoder(as_one(self._crossing(x)).detach()), x)
            self.adversary.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]
            self.adversary.step()

        crossing = self._crossing(x)
        # Within the range: the front must not win by driving the decoder where no attacker would follow.
        fooled = functional.mse_loss(self.decoder.within_range(as_one(crossing)), x)
        loss = functional.cross_entropy(self._logits(crossing), y) - self.recipe.adversarial_weight * fooled
        self.players.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.players.step()

    def tested(self, number: int, x: Tensor, y: Tensor) -> Epoch:
        for module in (self.view.front, self.classifier):
            module.eval()
        with torch.no_grad():
            right = self._logits(self._crossing(x)).argmax(dim=1) == y
        rebuilt = reconstruct(self.decoder, self.view, x)
        guessed = mean_squared_error(self.decoder.mean.expand_as(x), x)
        return Epoch(number, float(right.double().mean()), mean_squared_error(rebuilt, x), guessed)

    def _crossing(self, x: Tensor) -> Crossing:
        return self.view.protection.apply(self.view.front(x), self.view.generator)

    def _logits(self, crossing: Crossing) -> Tensor:
        logits: Tensor = self.classifier(*crossing) if isinstance(crossing, tuple) else self.classifier(crossing)
        return logits
