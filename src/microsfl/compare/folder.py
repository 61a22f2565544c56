"""The output folder of a comparison: what was asked, a folder for each finished cell, and what is made of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidSetting, StoreNotWritable
from ..launch.folder import Folder
from ..launch.run_folder import METRICS

ASKED = "compare.json"

Json = dict[str, Any]


class CompareFolder(Folder):
    """An output folder. Made new, or gone on with when it has the same comparison.

    Args:
        asked: all that decides the comparison: the configuration as it was written, and how cells are run.

    Raises:
        InvalidSetting: when there is something else in it, or the comparison there is another one, naming what differs.
        StoreNotWritable: when it cannot be made.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self.path = path.resolve()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            content = sorted(entry.name for entry in self.path.iterdir())
            if ASKED in content:
                self._refuse_another(asked)
            elif content:
                raise InvalidSetting(
                    f"The output folder {path} is not empty (it has {content[0]}) and holds no comparison; name "
                    "another one, or remove it first."
                )
            else:
                self.write_text(ASKED, json.dumps(asked, indent=2) + "\n")
        except OSError as error:
            raise StoreNotWritable(f"The output folder {path} cannot be made: {error.strerror}.") from None

    def result(self, cell: str) -> Json | None:
        """What the cell came to; None when it is not finished, or was not written to the end."""
        try:
            result = json.loads((self._cell(cell) / "result.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return result if isinstance(result, dict) and result.get("id") == cell else None

    def write_result(self, cell: str, result: Json, metrics: Sequence[Mapping[str, Any]]) -> None:
        """metrics.csv, a row for each round and client, and then result.json, which makes the cell finished."""
        self._cell(cell).mkdir(parents=True, exist_ok=True)
        if metrics:
            self.write_rows(f"cells/{cell}/metrics.csv", METRICS, metrics)
        self.write_text(f"cells/{cell}/result.json", json.dumps(result, indent=2, allow_nan=False) + "\n")

    def fresh_run(self, cell: str) -> Path:
        """A folder for the cell's run with real services; what an attempt before has left there is removed."""
        path = self._cell(cell) / "run"
        if path.exists():
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _cell(self, cell: str) -> Path:
        return self.path / "cells" / cell

    def _refuse_another(self, asked: Mapping[str, Any]) -> None:
        try:
            there = json.loads((self.path / ASKED).read_text("utf-8"))
        except ValueError:
            raise InvalidSetting(
                f"{self.path / ASKED} cannot be read; remove the folder, or name another one."
            ) from None
        for name, before, now in differences(there, json.loads(json.dumps(asked))):
            raise InvalidSetting(
                f"The output folder {self.path} holds another comparison: {name} is {before} there and {now} here. "
                "Name another folder with --output, or ask for the same again to go on with it."
            )


def differences(there: Any, here: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted name, value there, value here) of each setting that differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*there, *(key for key in here if key not in there)]:
            below = f"{name}.{key}" if name else str(key)
            yield from differences(there.get(key, _Absent), here.get(key, _Absent), below)
    elif there != here:
        yield name, _said(there), _said(here)


class _Absent:
    """In the place of a setting that is not written down."""


def _said(value: Any) -> str:
    return "not set" if value is _Absent else json.dumps(value)
