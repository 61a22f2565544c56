"""A run in miniature, before it begins: its model, optimizers and partition as every process will make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core.codec import make_optimizer
from ..core.cut import Parts
from ..core.partition import IntArray, Share, label_counts
from ..device import choose_device
from ..errors import InvalidSetting
from ..spec import OptimizerTable, RunSpec
from ..zoo.datasets import Data, Samples, labels, load_data, take
from ..zoo.deal import deal
from ..zoo.parts import build_parts, client_side, load_front
from .deadline import check_deadline

SAMPLES = 2  # enough to see whether a model takes a batch

Json = dict[str, Any]


@dataclass(frozen=True)
class Rehearsal:
    """parts: the model with its initial weights. shares: one a client. class_counts: int64 [clients, classes]."""

    parts: Parts
    shares: list[Share]
    class_counts: IntArray


def rehearse(spec: RunSpec, data: Data | None = None) -> Rehearsal:
    """Build everything that the run will need, and send two samples through the model.

    Args:
        spec: resolved. Its model and data set functions are the user's own and may be imported.
        data: what the specification names, where it is loaded already.

    Raises:
        InputError: what a process of the run would find wrong with the specification.
    """
    for device in {spec.servers.device, spec.servers.client_device}:
        choose_device(device)
    parts = build_parts(spec, [spec.model.name])
    load_front(spec, parts.front)
    _check_optimizers(spec, parts)
    data = data or load_data(spec.data.dataset, spec.data.path)
    _check_model(spec, parts, data.train)
    train, test = labels(data.train), labels(data.test)
    _check_labels(spec, train, test)
    shares = deal(spec, train, test).shares
    if spec.run.deadline_s:
        check_deadline(spec, parts, data.train, shares)
    return Rehearsal(parts, shares, label_counts(train, shares, _classes(spec)))


def rehearsed(question: Json) -> Json:
    """The same for who asks in JSON: from `spec` to `class_counts`."""
    return {"class_counts": rehearse(RunSpec.parse(question["spec"])).class_counts.tolist()}


def _check_optimizers(spec: RunSpec, parts: Parts) -> None:
    strategy = spec.strategy
    rules: list[tuple[nn.Module, OptimizerTable]] = [(parts.body, strategy.body_optimizer)]
    for name, part in client_side(spec, parts).items():
        if name != "front" or strategy.front_update != "never":
            rules.append((part, strategy.client_optimizer))
    for part, rule in rules:
        parameters = list(part.parameters())
        if parameters:
            make_optimizer(rule.name, parameters, rule.options)


def _check_model(spec: RunSpec, parts: Parts, train: Samples) -> None:
    """Raises InvalidSetting unless the model turns samples of the data set into a row of logits each."""
    x, _ = take(train, np.arange(min(SAMPLES, len(train))))
    model = f"model.name = '{spec.model.name}' (input_shape {list(spec.model.input_shape)}, classes {_classes(spec)})"
    given = f"{len(x)} samples of shape {list(x.shape[1:])}"
    try:
        with torch.no_grad():
            logits = parts.joined().eval()(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # what modules raise on tensors that do not fit
        raise InvalidSetting(f"{model} cannot take {given}: {str(error).splitlines()[0]}.") from None
    found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    wanted = [len(x), _classes(spec)]
    if found != wanted:
        raise InvalidSetting(f"{model} returns {found} for {given}; it must return logits of shape {wanted}.")


def _check_labels(spec: RunSpec, train: IntArray, test: IntArray) -> None:
    largest = int(max(train.max(), test.max(initial=0)))
    if largest >= _classes(spec):
        raise InvalidSetting(
            f"model.classes = {spec.model.classes}, but the data has the label {largest}: use {largest + 1} or auto."
        )


def _classes(spec: RunSpec) -> int:
    if spec.model.classes == "auto":
        raise InvalidSetting("model.classes must be a number once a run begins, not 'auto'.")
    return spec.model.classes
