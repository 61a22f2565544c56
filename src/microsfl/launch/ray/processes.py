"""The processes of a run on Ray: the coordinator here, as a child, and all others held by actors."""

from __future__ import annotations

import os
import secrets
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...config import ProcessSettings, ServerSettings
from ..child import WATCHING
from ..forks import Forks, can_fork
from ..kept import Kept
from ..process_folder import ProcessFolder
from ..processes import Processes, secrets_of
from .cluster import Cluster, Needs
from .fork_desk import ForkDesk
from .holder import Parcel

if TYPE_CHECKING:
    from .certificates import Certificates

# Settings that name a file of this machine, which goes to the node with the process.
FILES = ("credential", "front_weights")


class RayProcesses(Processes):
    """Like `Processes`, with the same number of restarts, which Ray counts for all but the coordinator.

    Args:
        needs: what Ray keeps for a process, by role; nothing for a role that is not among them.
    """

    certificates: Certificates | None = None  # of the nodes; None: plain HTTP, on the loopback interface

    def __init__(self, restarts: int, forks: Forks | None, cluster: Cluster, needs: dict[str, Needs]) -> None:
        super().__init__(restarts, forks)
        self._restarts, self._cluster, self._needs = restarts, cluster, needs
        self._desk: ForkDesk | None = None
        self._mark = secrets.token_hex(4)  # runs may share a cluster, and actors their names

    def begin(self, folder: ProcessFolder) -> None:
        super().begin(folder)
        if self.forks is not None and self._cluster.folder is not None and self._cluster.is_here and can_fork():
            self._desk = self._own.enter_context(closing(ForkDesk(self.forks, self._cluster.folder)))

    def spawn(self, role: str, name: str, settings: ProcessSettings, area: str | None = None) -> Kept:
        if role == "coordinator":
            return super().spawn(role, name, settings, area)
        from .held import Held

        needs = self._needs.get(role, Needs())
        held = Held(
            role,
            name,
            settings,
            self._log(name),
            self._cluster.place(f"{name}-{self._mark}", needs, self._restarts),
            partial(self.parcel, role, name, settings, area),
            str(needs),
            self.supervisor.reports.append,
        )
        self._replace(held)
        self.record()
        return held

    def _replace(self, held: Kept) -> None:
        """One that was there before under the name has ended."""
        names = [one.name for one in self.children]
        at = names.index(held.name) if held.name in names else len(names)
        self.children[at : at + 1] = [held]

    def parcel(self, role: str, name: str, settings: ProcessSettings, area: str | None, node: str) -> Parcel:
        """What the process needs on the node of that address."""
        given: dict[str, Any] = {one: getattr(settings, one) for one in settings.model_fields_set}
        files = {one: Path(given.pop(one)).read_bytes() for one in FILES if given.get(one) is not None}
        if isinstance(settings, ServerSettings) and self.certificates is not None:
            given["host"] = node
            files |= self.certificates.of(node)
        environment = {one: os.environ[one] for one in WATCHING if one in os.environ}
        forks = str(self._desk.path) if self._desk is not None else None
        return Parcel(__version__, role, name, given, files, secrets_of(area), environment, forks)
