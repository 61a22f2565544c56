"""`microsfl pretrain`: from a configuration and public data to the file of a front."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from ..core.cut import Parts
from ..errors import InvalidSetting, NotFinite, StoreNotWritable
from ..launch.preflight import resolve
from ..spec import RunSpec
from ..wire.tensors import encode
from ..zoo.datasets import labels, load_data, take
from ..zoo.deal import deal
from .finished import FEWEST, device_of, moved, untrained
from .pretraining import Epoch, Recipe, pretrain
from .smashed import Protection


@dataclass(frozen=True)
class Options:
    """noise_std: in the training. dataset, path: other public data than the run's own."""

    epochs: int
    lr: float
    adversary: str
    adversarial_weight: float
    decoder_steps: int
    noise_std: float
    seed: int
    device: str
    dataset: str | None = None
    path: str | None = None


def pretrain_front(spec: RunSpec, output: Path, options: Options) -> str:
    """Pre-train the front of `spec` on public data and write it to `output`; the file's SHA-256 in hexadecimal.

    Raises:
        InvalidSetting: when there is no public data, or it does not fit the model.
        NotFinite: when the training diverges.
        StoreNotWritable: when the file cannot be written.
    """
    if not spec.strategy.traits.split and spec.strategy.front_update != "never":
        raise InvalidSetting(
            f"strategy.name = '{spec.strategy.name}' does not cut the model, so there is no front to train; a frozen "
            "one there is with strategy.front_update = 'never'."
        )
    device = device_of(options.device)
    # The file that the run is to begin with is what is being made here.
    model = spec.model.model_copy(update={"front_weights": None, "front_sha256": None})
    own_path = {"path": options.path} if options.dataset is None and options.path is not None else {}
    spec = resolve(spec.model_copy(update={"model": model, "data": spec.data.model_copy(update=own_path)}))
    x, y = _public(spec, options)
    parts = moved(untrained(spec, options.seed), device)
    recipe = Recipe(
        epochs=options.epochs,
        lr=options.lr,
        adversary=options.adversary,
        adversarial_weight=options.adversarial_weight,
        decoder_steps=options.decoder_steps,
        protection=Protection(spec.privacy.clip_norm, options.noise_std),
        seed=options.seed,
    )
    click.echo(f"{len(x):,} public samples, {sum(p.numel() for p in parts.front.parameters()):,} parameters", err=True)
    pretrain(parts, x.to(device), y.to(device), recipe, on_epoch=lambda epoch: _show(epoch, options.epochs))
    return _write(output, parts)


def _public(spec: RunSpec, options: Options) -> tuple[Tensor, Tensor]:
    """The public samples [n, *input_shape] float32 and their labels int64 [n]."""
    if options.dataset is None:
        if not spec.data.public:
            raise InvalidSetting(
                "There is no public data: set data.public to the share of the train set that no client shall get, or "
                "name another data set with --dataset."
            )
        data = load_data(spec.data.dataset, spec.data.path)
        indices = deal(spec, labels(data.train), labels(data.test)).public
    else:
        data = load_data(options.dataset, options.path)
        if data.input_shape != spec.model.input_shape or data.classes > int(spec.model.classes):
            raise InvalidSetting(
                f"The samples of '{options.dataset}' are of shape {list(data.input_shape)} in {data.classes} classes; "
                f"the run's are {list(spec.model.input_shape)} in {spec.model.classes}."
            )
        indices = np.arange(len(data.train))
    if len(indices) < FEWEST:
        raise InvalidSetting(f"{len(indices)} public samples are too few to train with; it takes {FEWEST} at least.")
    return take(data.train, indices)


def _show(epoch: Epoch, epochs: int) -> None:
    click.echo(
        f"epoch {epoch.number + 1}/{epochs}  accuracy {epoch.accuracy:.4f}  decoder MSE {epoch.decoder_mse:.4f}  "
        f"(mean input: {epoch.mean_input_mse:.4f})",
        err=True,
    )


def _write(output: Path, parts: Parts) -> str:
    front = parts.front.state_dict()
    if not all(torch.isfinite(tensor).all() for tensor in front.values()):
        raise NotFinite("The front has weights that are no numbers: use a smaller --lr or --adversarial-weight.")
    content = encode(front)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(content)
    except OSError as error:
        raise StoreNotWritable(f"The front cannot be written to {output}: {error.strerror}.") from None
    return hashlib.sha256(content).hexdigest()
