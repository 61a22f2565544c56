"""The command that makes certificates for a closed network."""

from __future__ import annotations

from pathlib import Path

import click


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
def certs(folder: Path, hosts: tuple[str, ...], clients: tuple[str, ...], days: int) -> None:
    """Make certificates for the services of a closed network.

    FOLDER has their CA, which is made the first time: ca.pem, which everybody gets, and ca.key, which stays there. The
    same command later makes a new certificate with the same names, which a running server takes over.
    """
    from ..trust.authority import Authority

    if not hosts and not clients:
        raise click.UsageError("Name a server with --host, or a client with --client.")
    authority = Authority.in_folder(folder)
    ca = folder / "ca.pem"
    if hosts:
        made = authority.server(hosts, days)
        click.echo(f"server {', '.join(hosts)}: --tls-cert {made.cert} --tls-key {made.key}")
    for client in clients:
        made = authority.client(client, days)
        click.echo(f"client {client}: --tls-client-cert {made.cert} --tls-client-key {made.key}")
    click.echo(f"whoever calls a server: --tls-ca {ca}")
