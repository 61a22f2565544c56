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
from ..zoo.deal import OWN, deal, everything, own_data
from ..zoo.parts import build_parts, client_side, load_front
from .deadline import check_deadline

SAMPLES = 2  # enough to see whether a model takes a batch

Json = dict[str, Any]


@dataclass(frozen=True)
class Rehearsal:
    """parts: the model with its initial weights. data, shares: one a client. class_counts: int64 [clients, classes]."""

    parts: Parts
    data: list[Data]
    shares: list[Share]
    class_counts: IntArray


def rehearse(spec: RunSpec, data: Data | None = None, *, devices: bool = True) -> Rehearsal:
    """Build everything that the run will need, and send two samples through the model.

    Args:
        spec: resolved. Its model and data set functions are the user's own and may be imported.
        data: what the specification names, where it is loaded already and divided among the clients.
        devices: whether the specification's devices are to be on this machine.

    Raises:
        InputError: what a process of the run would find wrong with the specification.
    """
    for device in {spec.servers.device, spec.servers.client_device} if devices else ():
        choose_device(device)
    parts = build_parts(spec, [spec.model.name])
    load_front(spec, parts.front)
    _check_optimizers(spec, parts)
    rehearsal = _own(spec, parts) if spec.data.partition == OWN else _dealt(spec, parts, data)
    if spec.run.deadline_s:
        slowest = max(range(len(rehearsal.shares)), key=lambda number: len(rehearsal.shares[number].train))
        check_deadline(spec, parts, rehearsal.data[slowest].train, rehearsal.shares)
    return rehearsal


def _dealt(spec: RunSpec, parts: Parts, data: Data | None) -> Rehearsal:
    data = data or load_data(spec.data.dataset, spec.data.path)
    _check_model(spec, parts, data.train)
    train, test = labels(data.train), labels(data.test)
    _check_labels(spec, train, test)
    shares = deal(spec, train, test).shares
    return Rehearsal(parts, [data] * len(shares), shares, label_counts(train, shares, _classes(spec)))


def _own(spec: RunSpec, parts: Parts) -> Rehearsal:
    """Each client has its own data."""
    found, shares, counts = own_data(spec), [], []
    for data in found:
        _check_model(spec, parts, data.train)
        train = labels(data.train)
        _check_labels(spec, train, labels(data.test))
        shares.append(everything(data))
        counts.append(label_counts(train, shares[-1:], _classes(spec))[0])
    return Rehearsal(parts, found, shares, np.stack(counts))


def rehearsed(question: Json) -> Json:
    """The same for who asks in JSON: from `spec` and `devices` to `class_counts`."""
    spec = RunSpec.parse(question["spec"])
    return {"class_counts": rehearse(spec, devices=question["devices"]).class_counts.tolist()}


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
