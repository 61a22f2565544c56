"""The processes of a run as actors of Ray, for as long as a `with` block lasts."""

from __future__ import annotations

import importlib.util
import math
import threading
from dataclasses import replace
from pathlib import Path

from ...config import CoordinatorSettings, SplitServerSettings
from ...errors import InvalidSetting
from ...spec import RunSpec
from ...sync import keys
from ..admission import LocalFederation
from ..federation import Federation, areas, client_groups, cores
from ..forks import Forks
from ..members import Members
from ..processes import Processes
from ..readable import counted
from .autoscaler import Autoscaler
from .certificates import Certificates
from .cluster import Cluster, Needs
from .processes import RayProcesses

DRAIN_S = 20.0
ENOUGH = 64  # client processes that are made without being asked for


class RayFederation(Federation):
    """A `Federation` whose split servers, fed server and clients are held by actors.

    Ray places the actors and starts again those that end, with their processes. The coordinator stays with the caller,
    where its records, the run folder and the logs are. Between `ray.min` and `ray.max` there are as many split servers
    as the coordinator recommends.

    Args:
        spec, folder, resume, forks: see `Federation`.
        address: of a Ray cluster, host:port, ray://host:port or auto; None: a node of our own on this machine, or the
            Ray that this process is connected to.

    Raises, when it is entered, besides what `Federation` does:
        OperationError: when Ray is not installed or does not start.
        InvalidSetting: when the cluster is not there, or too small, or its nodes do not share the stores.
    """

    def __init__(
        self,
        spec: RunSpec,
        address: str | None = None,
        folder: Path | str | None = None,
        *,
        resume: bool = False,
        forks: Forks | None = None,
    ) -> None:
        self.cluster = Cluster(address)
        self._scaling = threading.Lock()
        self._autoscaler: Autoscaler | None = None
        self._replicas: tuple[str, ...] = ()  # names of all that there may be
        self._leaving: set[str] = set()
        super().__init__(spec, folder, resume=resume, forks=forks)
        self.fewest, self.most = self.spec.ray.bounds(self.spec.servers.split)

    def scale(self, count: int) -> None:
        """Have so many split servers from now on, between `ray.min` and `ray.max`. They take a while to come and go.

        Those that go hand over what they have, and end.
        """
        with self._scaling:
            living = {one.name: one for one in self.children if one.state != "ended"}
            self._leaving &= living.keys()
            there = [name for name in self._replicas if name in living and name not in self._leaving]
            wanted = min(max(count, self.fewest), self.most)
            for name in there[wanted:]:
                self.supervisor.reports.append(f"{name} is not needed any more; it ends")
                self._leaving.add(name)
                living[name].process.terminate()
            unused = [name for name in self._replicas if name not in living]
            for name in unused[: max(0, wanted - len(there))]:
                self.supervisor.reports.append(f"{name} is added")
                assert self._local is not None
                self.processes.spawn("split-server", name, self._split_server(name, self._local), keys.BODY)

    def stop_scaling(self) -> None:
        """From now on, the number of split servers changes with `scale` alone."""
        if self._autoscaler is not None:
            self._autoscaler.stop()

    def close(self) -> None:
        self.stop_scaling()
        try:
            super().close()
        finally:
            self.cluster.close()

    def finish(self) -> None:
        self.stop_scaling()
        super().finish()

    def _start(self) -> None:
        needs = self._needs()
        least = [needs["split-server"]] * self.fewest * self.spec.strategy.traits.split
        own = self.most * needs["split-server"].cpus + cores() * self.spec.ray.client_cpus
        self.cluster.open(own, self._code())
        self._clients = self._client_processes()
        self.cluster.check(least + [needs["client"]] * len(self._clients))
        self._check_stores()
        self.has_devices = self.cluster.is_here
        super()._start()
        if self.fewest < self.most and self.spec.strategy.traits.split:
            self._autoscaler = Autoscaler(lambda: self.control.replicas_wanted(self.fewest, self.most), self.scale)
            self._autoscaler.start()

    def _processes(self, forks: Forks | None) -> Processes:
        self._on_ray = RayProcesses(self.spec.servers.restarts, forks, self.cluster, self._needs())
        return self._on_ray

    def _members(self, local: LocalFederation) -> Members:
        if not self.cluster.is_here:
            certificates = Certificates(local.folder / "pki")
            self._on_ray.certificates = certificates
            local.tls_ca = certificates.authorities
        traits = self.spec.strategy.traits
        at_first = min(max(self.spec.servers.split, self.fewest), self.most)
        members = Members.of(self.most * traits.split, self._clients, federated=traits.federated)
        self._replicas = members.replicas
        return replace(members, at_first=at_first)

    def _coordinator(self, federation: Path) -> CoordinatorSettings:
        settings = super()._coordinator(federation)
        certificates = self._on_ray.certificates
        if certificates is None:
            return settings
        files = certificates.files(self.cluster.ip)
        network = {"host": self.cluster.ip, "tls_cert": str(files.cert), "tls_key": str(files.key)}
        return settings.model_copy(update={**network, "tls_ca": str(certificates.ca_file)})

    def _split_server(self, name: str, local: LocalFederation) -> SplitServerSettings:
        """One that goes before the run ends has others to leave its clients to."""
        return super()._split_server(name, local).model_copy(update={"drain_s": DRAIN_S})

    def _needs(self) -> dict[str, Needs]:
        """What Ray keeps for a process of a role; for a fed server nothing, which averages once a round."""
        table = self.spec.ray
        gpus = float(self.spec.servers.device.startswith("cuda")) if table.gpus == "auto" else table.gpus
        return {"split-server": Needs(table.cpus, gpus, table.resources), "client": Needs(table.client_cpus)}

    def _client_processes(self) -> list[tuple[str, ...]]:
        """Where the specification does not say how many: as many as there is room for beside the split servers."""
        if not self.spec.run.managed:
            return []
        table, cpus = self.spec.ray, self.cluster.total.get("CPU", 0.0)
        left = cpus - self.most * table.cpus * self.spec.strategy.traits.split
        room = math.floor(left / table.client_cpus) if table.client_cpus else cores()
        return client_groups(self.spec, min(max(room, 1), ENOUGH))

    def _check_stores(self) -> None:
        if self.cluster.has_one_folder:
            return
        for area in areas(self.spec):
            if getattr(self.spec.store, area) == "auto":
                raise InvalidSetting(
                    f"store.{area} = 'auto' is a folder of this machine, and the Ray cluster has "
                    f"{counted(len(self.cluster.nodes), 'node')}, not all of which see it. Name a store that all "
                    f"share: s3://bucket/prefix, or file:// of a shared folder (--set store.{area}=…)."
                )

    def _code(self) -> str | None:
        """The working directory, when the user's own model or data set is in it: nodes of a cluster get a copy."""
        own = [name.partition(":")[0] for name in (self.spec.model.name, self.spec.data.dataset) if ":" in name]
        found = [importlib.util.find_spec(name.partition(".")[0]) for name in own]
        here = Path.cwd()
        files = [Path(one.origin) for one in found if one is not None and one.origin]
        return str(here) if any(here in file.resolve().parents for file in files) else None
