"""A finished run, read from its folder: metrics to look at, and the model to use."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidSetting, StoreCorrupt
from ..spec import RunSpec

if TYPE_CHECKING:
    from torch import nn

Json = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What a run came to.

    Attributes:
        folder: its run folder.
        spec: its specification.
        summary: the content of summary.json: accuracy, loss, history by round, traffic, commits, hashes of the weights.
    """

    folder: Path
    spec: RunSpec
    summary: Json

    @property
    def metrics(self) -> Any:
        """A row for each round and client: a pandas DataFrame, or where there is no pandas, a list of dictionaries."""
        file = self.folder / "metrics.csv"
        if importlib.util.find_spec("pandas") is not None:
            return importlib.import_module("pandas").read_csv(file)
        with file.open(newline="", encoding="utf-8") as rows:
            return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(rows)]

    def model(self) -> nn.Module:
        """The trained model, its parts joined, on the CPU and in evaluation mode. A model of your own is imported.

        Raises:
            InvalidSetting: when the run has no model in one place, as with the strategy `local`.
            StoreCorrupt: when a file is not the one that the run wrote.
        """
        from ..wire.tensors import decode
        from ..zoo.parts import build_parts

        hashes = self.summary["weights_sha256"]
        if not hashes:
            raise InvalidSetting(
                f"The run in {self.folder} has no model: with strategy.name = '{self.spec.strategy.name}' the weights "
                "stay with the clients."
            )
        parts = build_parts(self.spec, [self.spec.model.name])
        for name, expected in hashes.items():
            file = self.folder / "model" / f"{name}.safetensors"
            content = file.read_bytes() if file.is_file() else b""
            if hashlib.sha256(content).hexdigest() != expected:
                raise StoreCorrupt(f"{file} is missing or not what the run wrote (sha256 {expected}).")
            getattr(parts, name).load_state_dict(decode(content).tensors)
        return parts.joined().eval()


def load_run(path: Path | str) -> Run:
    """The finished run in a run folder, as `microsfl run` writes it.

    Raises:
        InvalidSetting: when there is no finished run in the folder.
    """
    folder = Path(path).resolve()
    file = folder / "summary.json"
    if not file.is_file():
        raise InvalidSetting(
            f"{path} has no summary.json, so it is not the folder of a finished run. A run that was stopped is "
            f"finished with `microsfl resume {path}`."
        )
    try:
        summary = json.loads(file.read_text("utf-8"))
        return Run(folder, RunSpec.parse(summary["spec"]), summary)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidSetting(f"{file} cannot be read: {error!r}.") from None


def _value(text: str) -> int | float | str | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None
