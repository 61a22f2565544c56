"""The folder of processes on this machine: their logs and, unless they are told otherwise, their stores and records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .folder import Folder


class ProcessFolder(Folder):
    """Where each file stands."""

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def store_url(self, area: str) -> str:
        """The store of the area "body" or "client"."""
        return (self.path / "store" / area).as_uri()

    def records_url(self) -> str:
        """The coordinator's database."""
        return f"sqlite:///{self.path / 'coordinator.db'}"

    def write_processes(self, processes: Sequence[Mapping[str, Any]]) -> None:
        """processes.json."""
        self.write_text("processes.json", json.dumps(processes, indent=2) + "\n")
