"""All attacks on one finished run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from ..core.randomness import generator
from ..core.unit import seed_of
from ..spec import RunSpec
from .distance import LARGEST, distance_correlation, independence_level
from .finished import FinishedRun, Samples, untrained_front
from .inversion import Quality, learn_inversion, quality, reconstruct
from .labels import Exchange, LabelInference, exchange, few_of_each, infer_labels
from .smashed import Protection, View

THIS_RUN, MEAN_INPUT = "this run", "mean input"


@dataclass(frozen=True)
class Case:
    """One situation that the inversion is tried in. what: the same in a sentence."""

    name: str
    what: str
    front: nn.Module
    protection: Protection


@dataclass(frozen=True)
class Inverted:
    """What became of a case. reconstructed: [n, *input_shape], of the victims' samples in their order."""

    name: str
    what: str
    quality: Quality
    reconstructed: Tensor = field(repr=False)


@dataclass(frozen=True)
class Dependence:
    """Distance correlation of inputs and smashed data, and what it would be if they were independent."""

    value: float
    independent: float
    samples: int


def cases(run: FinishedRun, seed: int) -> list[Case]:
    """Every situation in which the inversion says something about this run, itself first."""
    privacy, own = run.spec.privacy, protection_of(run.spec)
    found = [Case(THIS_RUN, "the run's front, clipping and noise; each sample is seen once", run.parts.front, own)]
    sendings = sendings_of_a_sample(run.spec)
    if privacy.noise_std and privacy.noise_seed == "run":
        bare = Protection(privacy.clip_norm, 0.0)
        found.append(Case("noise subtracted", "by one who knows the specification", run.parts.front, bare))
    elif privacy.noise_std and run.spec.strategy.front_update == "never" and sendings > 1:
        averaged = Protection(privacy.clip_norm, privacy.noise_std / math.sqrt(sendings))
        what = f"over the {sendings} times that the frozen front sent a sample, by one who recognizes it"
        found.append(Case("noise averaged", what, run.parts.front, averaged))
    what = "random weights, clipped and noisy as in this run"
    return [*found, Case("untrained front", what, untrained_front(run.spec, seed), own)]


def protection_of(spec: RunSpec) -> Protection:
    return Protection(spec.privacy.clip_norm, spec.privacy.noise_std)


def sendings_of_a_sample(spec: RunSpec) -> int:
    """How often a train sample's smashed data travels in a run, on average."""
    passes = spec.run.rounds * spec.strategy.local_epochs * spec.participants / spec.run_clients
    return max(1, round(passes / (spec.strategy.send_every if spec.strategy.traits.auxiliary else 1)))


def invert(
    case: Case, attacker: Samples, victims: Samples, *, epochs: int, seed: int, on_epoch: Callable[[], object]
) -> Inverted:
    """Learn on the attacker's samples, reconstruct the victims'."""
    view = View(case.front.to(attacker.x.device), case.protection, seed_of("seen", seed, case.name))
    decoder = learn_inversion(view, attacker.x, epochs=epochs, seed=seed, on_epoch=on_epoch)
    return _inverted(case.name, case.what, reconstruct(decoder, view, victims.x), attacker, victims)


def guess(attacker: Samples, victims: Samples) -> Inverted:
    """The mean of the attacker's samples for each of the victims': what can be had without any smashed data."""
    mean = attacker.x.mean(dim=0).expand_as(victims.x)
    return _inverted(MEAN_INPUT, "the mean of the attacker's samples, whatever was sent", mean, attacker, victims)


def dependence(run: FinishedRun, victims: Samples, seed: int) -> Dependence:
    """Of the victims' inputs and what the run would send of them."""
    x = victims.x[:LARGEST]
    sent = View(run.parts.front, protection_of(run.spec), seed_of("dependence", seed))(x)
    independent = independence_level(x, sent, generator(seed_of("independence", seed)))
    return Dependence(distance_correlation(x, sent), independent, len(x))


def labels_of(run: FinishedRun, attacker: Samples, victims: Samples, seed: int) -> LabelInference:
    """Label inference from what one more pass of training would send; for a U-shaped cut alone."""
    few = few_of_each(attacker.y)
    known = _exchange(run, attacker.x[few], attacker.y[few], seed_of("known", seed))
    seen = _exchange(run, victims.x, victims.y, seed_of("seen", seed))
    return infer_labels(known, attacker.y[few], seen, victims.y)


def _exchange(run: FinishedRun, x: Tensor, y: Tensor, seed: int) -> Exchange:
    protection, noise, strategy = protection_of(run.spec), generator(seed), run.spec.strategy
    return exchange(
        run.parts,
        x,
        y,
        batch_size=run.spec.data.batch_size,
        seed=seed,
        front_is_trained=strategy.front_update != "never",
        protected=lambda tensors: {name: protection.one(tensor, noise) for name, tensor in tensors.items()},
    )


def _inverted(name: str, what: str, reconstructed: Tensor, attacker: Samples, victims: Samples) -> Inverted:
    data_range = float(attacker.x.max() - attacker.x.min())
    return Inverted(name, what, quality(reconstructed, victims.x, data_range=data_range), reconstructed)
