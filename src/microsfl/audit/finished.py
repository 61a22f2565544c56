"""A finished run, read from its run folder, and the data that an attack on it is tried with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..core.cut import Parts
from ..core.partition import IntArray, set_aside
from ..core.unit import seed_of
from ..device import choose_device
from ..errors import InvalidSetting
from ..finished.trained import check_finished, read_parts, spec_of
from ..spec import RunSpec
from ..zoo.datasets import labels, load_data, take
from ..zoo.deal import deal
from ..zoo.parts import build_parts

FEWEST = 20  # samples on either side; with fewer, a figure means nothing


@dataclass(frozen=True)
class FinishedRun:
    """spec: resolved. parts: as the run left them."""

    spec: RunSpec
    parts: Parts


@dataclass(frozen=True)
class Samples:
    """x: [n, *input_shape] float32. y: labels int64 [n]. what: where they come from, as a report says it."""

    x: Tensor
    y: Tensor
    what: str


def read_run(folder: Path, path: str | None = None) -> FinishedRun:
    """The run of a run folder, with its trained model.

    Args:
        path: of the data set's files, when they are not where the run folder says.

    Raises:
        InvalidSetting: when it is no run folder, the run is not finished, or nothing of it crosses a cut.
    """
    spec = spec_of(folder)
    if path is not None:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"path": path})})
    if not spec.strategy.traits.split:
        raise InvalidSetting(
            f"strategy.name = '{spec.strategy.name}' does not cut the model: no smashed data crosses a cut, and there "
            "is nothing that this audit could look at."
        )
    check_finished(folder)
    return FinishedRun(spec, read_parts(spec, folder))


def untrained(spec: RunSpec, seed: int) -> Parts:
    """The run's model with the initial weights of another seed."""
    run = spec.run.model_copy(update={"seed": seed})
    return build_parts(spec.model_copy(update={"run": run}), [spec.model.name])


def untrained_front(spec: RunSpec, seed: int) -> nn.Module:
    """A front of the run's shape with random weights."""
    return untrained(spec, seed_of("untrained", seed) % 2**31).front


def attack_data(spec: RunSpec, *, samples: int, seed: int) -> tuple[Samples, Samples]:
    """(the attacker's, the victims'), at most `samples` each, drawn at random by the seed.

    With public data the attacker has that, and the victims are the clients' train samples. Without, the test set is
    divided in two.

    Raises:
        InvalidSetting: when there are too few.
        DatasetNotFound: when the data set cannot be had.
    """
    data = load_data(spec.data.dataset, spec.data.path)
    train, test = labels(data.train), labels(data.test)
    dealt = deal(spec, train, test)
    if dealt.public.size:
        private = np.sort(np.concatenate([share.train for share in dealt.shares]))
        pairs = (
            (data.train, dealt.public, "the run's public samples, which no client has"),
            (data.train, private, "train samples of the clients"),
        )
    else:
        theirs, own = set_aside(len(test), part=0.5, seed=seed_of("halves", seed))
        pairs = (
            (data.test, own, "one half of the test set (the run has no public data)"),
            (data.test, theirs, "the other half of the test set"),
        )
    found = [
        Samples(*take(source, _some(indices, samples, seed_of("sample", place, seed))), what)
        for place, (source, indices, what) in enumerate(pairs)
    ]
    fewest = min(len(one.x) for one in found)
    if fewest < FEWEST:
        raise InvalidSetting(
            f"The audit would have {fewest} samples of {found[0].what} or {found[1].what}; it takes {FEWEST} at least "
            "on either side."
        )
    return found[0], found[1]


def _some(indices: IntArray, count: int, seed: int) -> IntArray:
    """At most `count` of the indices, ascending."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    return np.sort(rng.permutation(indices)[:count])


def device_of(name: str) -> torch.device:
    """The torch device of `--device`.

    Raises:
        InvalidSetting: when this machine does not have it, or it has no float64, which the measures need.
    """
    device = choose_device(name)
    if device.type != "mps":
        return device
    if name == "auto":
        return torch.device("cpu")
    raise InvalidSetting("--device mps has no 64-bit numbers, which these measures need; use cpu.")


def moved(parts: Parts, device: torch.device) -> Parts:
    """The parts, with their modules moved to a device."""
    return Parts(parts.front.to(device), parts.body.to(device), parts.tail.to(device))


def on(device: torch.device, samples: Samples) -> Samples:
    """The same samples on a device."""
    return Samples(samples.x.to(device), samples.y.to(device), samples.what)
