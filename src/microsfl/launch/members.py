"""The processes on this machine besides the coordinator: named, given credentials and started in one way, for one run
or for all that come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..config import ClientSettings, FedServerSettings, SplitServerSettings
from ..sync import keys
from ..trust.scopes import Role
from .admission import LocalFederation
from .processes import Processes

FED_SERVER = "fed-server"


@dataclass(frozen=True)
class Members:
    """replicas: the split servers, by name. federated: whether there is a fed server. groups: the client processes by
    name, and the clients that each hosts. at_first: how many of the replicas are started; None: all."""

    replicas: tuple[str, ...]
    federated: bool
    groups: Mapping[str, tuple[str, ...]]
    at_first: int | None = None

    @classmethod
    def of(cls, split: int, groups: Sequence[tuple[str, ...]], *, federated: bool) -> Self:
        replicas = tuple(f"split-server-{number}" for number in range(split))
        return cls(replicas, federated, {f"clients-{number}": ids for number, ids in enumerate(groups)})

    def join(self, local: LocalFederation) -> None:
        """Give each a credential of its own."""
        for name in self.replicas:
            local.add(name, Role.SPLIT_SERVER)
        if self.federated:
            local.add(FED_SERVER, Role.FED_SERVER)
        for name, ids in self.groups.items():
            local.add(name, Role.CLIENT, ids)

    def start(
        self,
        processes: Processes,
        local: LocalFederation,
        split_server: Callable[[str, LocalFederation], SplitServerSettings],
        fed_server: Callable[[LocalFederation], FedServerSettings],
        client: Callable[[tuple[str, ...], Path], ClientSettings],
    ) -> None:
        """Start all with the settings that these functions give, and supervise them; see `Processes.supervise`."""
        for name in self.replicas[: self.at_first]:
            processes.spawn("split-server", name, split_server(name, local), keys.BODY)
        if self.federated:
            processes.spawn("fed-server", FED_SERVER, fed_server(local), keys.CLIENT)
        for name, ids in self.groups.items():
            processes.spawn("client", name, client(ids, local.credential(name)))
        processes.supervise()
