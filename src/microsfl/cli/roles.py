"""The commands that start roles: up, which starts all of them here, and one for each role."""

from __future__ import annotations

from ..config import ClientSettings, CoordinatorSettings, FedServerSettings, SplitServerSettings
from ..launch.options import role_command
from ..launch.up_command import up
from ..process import importing
from .group import cli

cli.add_command(up)


@role_command(cli, "coordinator", CoordinatorSettings)
def coordinator(settings: CoordinatorSettings) -> None:
    """Start the coordinator: runs, rounds and metrics.

    It keeps its records in a database and never sees a tensor.
    """
    with importing():
        from ..services.coordinator import main

    main(settings)


@role_command(cli, "split-server", SplitServerSettings)
def split_server(settings: SplitServerSettings) -> None:
    """Start a split server: computes the body, keeps no state.

    Start as many as you like on one store; any of them can go at any moment.
    """
    with importing():
        from ..services.split_server import main

    main(settings)


@role_command(cli, "fed-server", FedServerSettings)
def fed_server(settings: FedServerSettings) -> None:
    """Start the fed server: averages client-side models."""
    with importing():
        from ..services.fed_server import main

    main(settings)


@role_command(cli, "client", ClientSettings)
def client(settings: ClientSettings) -> None:
    """Start a client: holds data, labels, front and tail.

    One process can host several clients. It makes outbound connections only.
    """
    with importing():
        from ..client.agent import main

    main(settings)
