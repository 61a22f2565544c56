"""The certificates of a run whose processes are on several nodes: a small CA that lives as long as the run."""

from __future__ import annotations

import threading
from pathlib import Path

from ...trust.authority import CERT, Authority, Written


class Certificates:
    """One for each node's address, in a folder that nobody else can read. For any number of threads."""

    def __init__(self, folder: Path) -> None:
        self._authority = Authority.in_folder(folder)
        self.ca_file = folder / CERT
        self._made: dict[str, Written] = {}
        self._lock = threading.Lock()

    @property
    def authorities(self) -> str:
        """What members trust, as PEM text."""
        return self.ca_file.read_text("ascii")

    def files(self, node: str) -> Written:
        """Those of a node, on this machine."""
        with self._lock:
            if node not in self._made:
                self._made[node] = self._authority.server([node])
            return self._made[node]

    def of(self, node: str) -> dict[str, bytes]:
        """The same as contents, by the settings that name such files."""
        files = self.files(node)
        return {"tls_cert": files.cert.read_bytes(), "tls_key": files.key.read_bytes()}
