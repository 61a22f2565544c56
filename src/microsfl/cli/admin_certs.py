"""The command that makes certificates for a closed network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..trust.authority import Written


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME_OR_IP",
    help="Make a certificate for a server that others reach under this name or address. Repeated: the same "
    "certificate has all of them, and its files go by the first.",
)
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="NAME",
    help="Make a certificate that a client shows where servers have --tls-client-ca. Repeated: one for each.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=365,
    show_default=True,
    help="How long they are valid; no longer than the CA, which is for ten years.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def certs(folder: Path, hosts: tuple[str, ...], clients: tuple[str, ...], days: int, as_json: bool) -> None:
    """Make certificates for the services of a closed network.

    FOLDER has their CA, which is made the first time: ca.pem, which everybody gets, and ca.key, which stays there. The
    same command later makes a new certificate with the same names, which a running server takes over.
    """
    from ..trust.authority import CERT, Authority

    if not hosts and not clients:
        raise click.UsageError("Name a server with --host, or a client with --client.")
    authority, ca = Authority.in_folder(folder), folder / CERT
    server = authority.server(hosts, days) if hosts else None
    shown = {name: authority.client(name, days) for name in clients}
    if as_json:
        made = {"server": server and _files(server), "clients": {name: _files(one) for name, one in shown.items()}}
        click.echo(json.dumps({"ca": str(ca), **made}, indent=2))
        return
    if server is not None:
        click.echo(f"server {', '.join(hosts)}: --tls-cert {server.cert} --tls-key {server.key}")
    for name, one in shown.items():
        click.echo(f"client {name}: --tls-client-cert {one.cert} --tls-client-key {one.key}")
    click.echo(f"whoever calls a server: --tls-ca {ca}")


def _files(made: Written) -> dict[str, str]:
    return {"cert": str(made.cert), "key": str(made.key)}
