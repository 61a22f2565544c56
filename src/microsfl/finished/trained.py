"""What a finished run left in its folder: its specification, and the model as it was trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from ..core.cut import Parts
from ..errors import InputError, InvalidSetting, StoreCorrupt
from ..launch.spec_file import read_spec
from ..spec import RunSpec
from ..wire.tensors import decode
from ..zoo.parts import build_parts


def spec_of(folder: Path) -> RunSpec:
    """The specification of a run folder, every `auto` that decides a result resolved.

    Raises:
        InvalidSetting: when it is no run folder.
    """
    file = folder / "run.toml"
    if not file.is_file():
        raise InvalidSetting(f"{folder} is not a run folder: it has no run.toml.")
    return read_spec(file)


def check_finished(folder: Path) -> None:
    """Raises InvalidSetting when the run of a run folder has not come to its end."""
    if not (folder / "summary.json").is_file():
        raise InvalidSetting(
            f"The run in {folder} is not finished: it has no summary.json. `microsfl resume {folder}` goes on with it."
        )


def check_content(folder: Path, hashes: Mapping[str, str]) -> None:
    """Raises StoreCorrupt unless model/ has what the run wrote. hashes: SHA-256 of each part's file."""
    for name, expected in hashes.items():
        file = folder / "model" / f"{name}.safetensors"
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise StoreCorrupt(f"{file} is missing, or is not what the run wrote (sha256 {expected}).")


def read_parts(spec: RunSpec, folder: Path) -> Parts:
    """Front, body and tail with their trained weights; a strategy that does not cut has everything in the tail.

    Raises:
        InvalidSetting: when a file is missing or does not fit, or the strategy leaves no model behind.
    """
    traits = spec.strategy.traits
    if not traits.federated:
        raise InvalidSetting(
            f"strategy.name = '{spec.strategy.name}' leaves no model behind: its weights stay with the clients."
        )
    parts = build_parts(spec, [spec.model.name])
    for name, part in (("front", parts.front), ("body", parts.body), ("tail", parts.tail)):
        if part.state_dict():
            _load(part, folder / "model" / f"{name}.safetensors")
    return parts


def _load(part: nn.Module, file: Path) -> None:
    try:
        weights = decode(file.read_bytes()).tensors
        part.load_state_dict(weights)
    except OSError as error:
        raise InvalidSetting(f"{file} cannot be read: {error.strerror}. Is the run finished?") from None
    except (InputError, RuntimeError) as error:
        raise InvalidSetting(f"{file} is not that part of the run's model: {str(error).splitlines()[0]}") from None
