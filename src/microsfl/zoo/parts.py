"""The parts of a run's model, as every process builds them."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.cut import Parts, cut_model, uncut, without_body
from ..core.formats import size_bytes
from ..core.randomness import seeded
from ..core.step import check_like, in_order, name_outputs
from ..core.unit import seed_of
from ..errors import InputError, InvalidSetting
from ..spec import RunSpec
from ..wire.tensors import decode
from .front_file import read_front
from .models import build_model

POOLED = 4  # positions along each side that an auxiliary head sees at most


def build_parts(spec: RunSpec, allowed: Collection[str]) -> Parts:
    """Front, body and tail with the initial weights that the run's seed draws: bit-equal in every process.

    A strategy that does not cut has everything in the tail, but for a front that is frozen. Whoever needs the front
    calls `load_front` too.

    Args:
        spec: resolved. allowed: import paths of model factories that this process may call.

    Raises:
        InvalidSetting, ModelNotAllowed, UnknownLayer, InvalidCut.
    """
    model = spec.model
    input_shape, classes = _shapes(spec)
    seed = seed_of("model", spec.run.seed)
    whole = build_model(model.name, input_shape=input_shape, classes=classes, seed=seed, allowed=allowed)
    if not spec.strategy.traits.split and spec.strategy.front_update != "never":
        return uncut(whole)
    parts = cut_model(whole, model.cut, u_shaped=model.u_shaped)
    return parts if spec.strategy.traits.split else without_body(parts)


def client_side(spec: RunSpec, parts: Parts) -> dict[str, nn.Module]:
    """The modules that a client holds: "front", "tail" and, where the strategy has one, the auxiliary head "aux"."""
    aux = {"aux": auxiliary_head(spec, parts)} if spec.strategy.traits.auxiliary else {}
    return {"front": parts.front, "tail": parts.tail, **aux}


def load_front(spec: RunSpec, front: nn.Module, path: str | None = None) -> None:
    """Give the front the weights that the run names, if it names any.

    Args:
        front: of the run's model. path: of the file on this machine; default: model.front_weights as the run has it.

    Raises:
        InvalidSetting: when there is no such file, its hash is not model.front_sha256, or it has other tensors.
        TensorMismatch: when a tensor has another shape or dtype.
    """
    wanted, named = spec.model.front_sha256, spec.model.front_weights
    if wanted is None:
        if named is None:
            return
        raise InvalidSetting(f"model.front_weights = '{named}': its hash, model.front_sha256, must be known by now.")
    path = path or named
    if path is None:
        raise InvalidSetting(
            f"The run's front begins with a file of sha256 {wanted}: set front_weights to its path on this machine."
        )
    content, found = read_front(path)
    if found != wanted:
        raise InvalidSetting(f"The front's weights '{path}' have sha256 {found}; the run's are {wanted}.")
    try:
        weights = decode(content).tensors
    except InputError as error:
        raise InvalidSetting(f"The front's weights '{path}' are no safetensors file: {error}") from None
    _load(front, weights, path)


def auxiliary_head(spec: RunSpec, parts: Parts) -> nn.Sequential:
    """A small classifier on the front's first activation that takes a gradient; initial weights by the run's seed.

    [n, channels, h, w] is pooled to at most 4x4 positions; whatever there is then is flattened into one linear layer:
    logits [n, classes]. The pooling has fixed windows, as in `models`: torch's adaptive one is not deterministic on
    CUDA.

    Raises:
        InvalidSetting: when the front hands on nothing that takes a gradient.
    """
    input_shape, classes = _shapes(spec)
    activation = _first_activation(parts.front, input_shape)
    if activation is None:
        raise InvalidSetting(
            f"strategy.name = '{spec.strategy.name}' trains the front, but this front has nothing to train: set "
            "model.cut to a later layer."
        )
    pool: nn.Module = nn.Identity()
    if activation.ndim == 4:
        height, width = (-(-side // POOLED) for side in activation.shape[2:])
        pool = nn.AvgPool2d((height, width), ceil_mode=True)
    features = pool(activation).numel()
    with seeded(seed_of("aux", spec.run.seed), ()):
        return nn.Sequential(pool, nn.Flatten(), nn.Linear(features, classes))


def activation_bytes(spec: RunSpec) -> int:
    """Bytes of what the front makes of one sample, as they travel. The user's own model may be imported.

    Raises:
        InvalidSetting, UnknownLayer, InvalidCut: see `build_parts`; also when the front does not take a sample.
    """
    front, (input_shape, _) = build_parts(spec, [spec.model.name]).front, _shapes(spec)
    try:
        return size_bytes(_activations(front, input_shape), spec.wire.activations, scales=False)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # what modules raise on tensors that do not fit
        raise InvalidSetting(
            f"model.name = '{spec.model.name}' cannot take a sample of shape {list(input_shape)}: "
            f"{str(error).splitlines()[0]}."
        ) from None


@dataclass(frozen=True)
class Crossing:
    """What a front makes of one sample: of each tensor the dtype, and the shape without the samples' dimension.

    sample_bytes: of these, of what the body makes of them, and of labels.
    """

    tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]]
    sample_bytes: int


def crossing(spec: RunSpec, parts: Parts) -> Crossing | None:
    """What crosses the cut of a run; None where the front does not take float32 samples of the run's shape."""
    input_shape, _ = _shapes(spec)
    try:
        with torch.no_grad():
            activations = _activations(parts.front, input_shape)
            inputs = [activations[name] for name in in_order(activations)]
            outputs = name_outputs(copy.deepcopy(parts.body).cpu().eval()(*inputs))
    except (RuntimeError, TypeError, ValueError, IndexError):  # what modules raise on tensors that do not fit
        return None
    if any(tensor.ndim == 0 for tensor in activations.values()):
        return None
    tensors = {name: (tensor.dtype, tuple(tensor.shape[1:])) for name, tensor in activations.items()}
    label_bytes = 8 * max(1, max(one.numel() for one in outputs.values()))  # of each position, where there are several
    sizes = [sum(tensor.nbytes for tensor in group.values()) for group in (activations, outputs)]
    return Crossing(tensors, sum(sizes) + label_bytes)


def _activations(front: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Tensor]:
    return name_outputs(copy.deepcopy(front).eval()(torch.zeros(1, *input_shape)))


def _first_activation(front: nn.Module, input_shape: tuple[int, ...]) -> Tensor | None:
    outputs = _activations(front, input_shape)
    return next((outputs[name] for name in in_order(outputs) if outputs[name].requires_grad), None)


def _shapes(spec: RunSpec) -> tuple[tuple[int, ...], int]:
    model = spec.model
    if model.input_shape == "auto" or model.classes == "auto":
        raise InvalidSetting(
            "model.input_shape and model.classes must be known; 'auto' is resolved before a run starts."
        )
    return model.input_shape, model.classes


def _load(front: nn.Module, weights: dict[str, Tensor], path: str) -> None:
    own = front.state_dict()
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())[:8]
        raise InvalidSetting(f"The front's weights '{path}' do not fit this front: the tensors differ in {odd}.")
    for name, tensor in weights.items():
        check_like(tensor, own[name], f"'{name}' of '{path}'")
    front.load_state_dict(weights)
