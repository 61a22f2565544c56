"""A folder with files that are written as a whole."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Folder:
    """Whoever reads a file while it is written again sees the old content or the new."""

    path: Path

    def write_text(self, name: str, text: str) -> None:
        new = self._new(name)
        new.write_text(text, "utf-8")
        os.replace(new, self.path / name)

    def write_rows(
        self, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, line_end: str = "\n"
    ) -> None:
        """A CSV file; an empty field is a value that there is not."""
        new = self._new(name)
        with new.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator=line_end)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(new, self.path / name)

    def _new(self, name: str) -> Path:
        target = self.path / name
        return target.with_name(f".{target.name}.new")
