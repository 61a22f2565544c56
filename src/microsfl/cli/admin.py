"""The commands about who takes part: those of an operator, `microsfl admin …`, and those of whoever is invited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..config import ProcessSettings
from .admin_certs import certs
from .group import cli
from .options import CREDENTIAL, Duration, Url, calls_a_coordinator

ROLES = ("client", "split-server", "fed-server", "viewer", "operator")
AT = click.option(
    "--coordinator",
    type=Url(),
    default="http://127.0.0.1:8000",
    show_default=True,
    envvar="MICROSFL_COORDINATOR",
    show_envvar=True,
    help="Coordinator to ask.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@cli.group()
def admin() -> None:
    """Make a federation, and decide who takes part.

    init and rotate-keys work on the federation's folder, where the coordinator runs; the others ask the coordinator,
    with the credential of an operator. certs makes certificates, and asks nobody.
    """


admin.add_command(certs)


@admin.command()
@FOLDER
@click.option("--name", metavar="TEXT", help="Name of the federation; default: that of the folder.")
@AT
@click.option("--credential", metavar="FILE", help="Where the operator's credential goes; default: the usual place.")
@click.option(
    "--tls-ca",
    metavar="FILE",
    envvar="MICROSFL_TLS_CA",
    show_envvar=True,
    help="CA of the coordinator's certificate, for the operator's credential to have it.",
)
@click.option(
    "--member",
    "members",
    multiple=True,
    metavar="ROLE:ID[:ID,…]",
    help="Who is in it from the beginning, without an invitation, as fed-server:fed or split-server:split:split-*; "
    "after the second colon is whom it acts as. Its credential is ID.json beside the operator's. May be repeated.",
)
@AS_JSON
def init(
    folder: Path,
    name: str | None,
    coordinator: str,
    credential: str | None,
    tls_ca: str | None,
    members: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a federation: its folder, a signing key, and an operator.

    Start the coordinator with --federation FOLDER; --coordinator is the URL under which others will reach it. The
    operator's credential is for this user, or for whomever its file is handed to.
    """
    from ..admin.folder import Member, begin
    from ..trust.credential import kept_for
    from ..trust.tls import Outbound

    path = Path(credential) if credential else kept_for(coordinator)
    authorities = Outbound.of(ProcessSettings(tls_ca=tls_ca)).authorities()
    made = begin(folder, name, coordinator, path, authorities, [Member.parse(one) for one in members])
    if as_json:
        click.echo(json.dumps({"federation": made.name, "folder": str(folder), "credential": str(path)}, indent=2))
        return
    click.echo(f"Federation '{made.name}' is in {folder}. Its signing key is in there: nobody else may read it.")
    others = f", and those of the members beside it, in {path.parent}" if members else ""
    click.echo(f"The operator's credential is in {path}{others}.")
    click.echo(f"\n  microsfl coordinator --federation {folder}\n\nstarts its coordinator, for {coordinator}.")


@admin.command()
@click.argument("id")
@click.option("--role", type=click.Choice(ROLES), default="client", show_default=True, help="What it is to be.")
@click.option(
    "--acts-as",
    multiple=True,
    metavar="ID",
    help="Client that this one's process hosts, or split server that shares this identity; 'split-*': all that begin "
    "so. Default: its own id alone. May be repeated.",
)
@click.option(
    "--run", "runs", multiple=True, metavar="NAME", help="Run that a client may take part in; default: all. Repeatable."
)
@click.option("--expires", type=Duration(), default="7d", show_default=True, help="How long the invitation holds.")
@AT
@CREDENTIAL
@AS_JSON
@calls_a_coordinator
def invite(id: str, role: str, acts_as: tuple[str, ...], runs: tuple[str, ...], expires: float, **at: Any) -> None:
    """Invite somebody: prints a token for one enrolment.

    The token is printed once, alone on standard output; hand it over so that nobody else sees it. Inviting ID again
    ends the earlier invitation, and makes the rest of this one its rights.
    """
    from ..admin.show import print_invitation

    given = _people(at).invite(id, role, acts_as, runs, expires)
    print_invitation({"id": id, "role": role, **given}, at["coordinator"], as_json=at["as_json"])


@admin.command()
@AT
@CREDENTIAL
@AS_JSON
@calls_a_coordinator
def identities(**at: Any) -> None:
    """List who may take part: role, rights, and whether enrolled or revoked."""
    from ..admin.show import print_identities

    print_identities(_people(at).identities(), as_json=at["as_json"])


@admin.command()
@click.argument("id")
@AT
@CREDENTIAL
@AS_JSON
@calls_a_coordinator
def revoke(id: str, **at: Any) -> None:
    """End a credential, its tokens and its sessions.

    Servers refuse its tokens from their next heartbeat on, within two seconds. A new invitation lets ID in again.
    """
    revoked = _people(at).revoke(id)
    if at["as_json"]:
        click.echo(json.dumps(revoked, indent=2))
    else:
        click.echo(f"The credential of '{revoked['id']}' is revoked.")


@admin.command("rotate-keys")
@FOLDER
@click.option("--at-once", is_flag=True, help="Forget all other keys: every token and session ends, of everybody.")
@AS_JSON
def rotate_keys(folder: Path, at_once: bool, as_json: bool) -> None:
    """Give a federation a new signing key.

    Its coordinator takes it over while it runs. Tokens that were signed before are right until they end; --at-once is
    for a key that somebody else has.
    """
    from ..admin.folder import rotate_keys

    keys = list(rotate_keys(folder, at_once=at_once).keys)
    if as_json:
        click.echo(json.dumps({"signs": keys[-1], "still_right": keys[:-1]}, indent=2))
    else:
        others = f"; what {', '.join(keys[:-1])} signed is still right" if keys[:-1] else "; no other key is right"
        click.echo(f"Key {keys[-1]} is new{others}.")


@admin.command("login-link")
@AT
@CREDENTIAL
@AS_JSON
@calls_a_coordinator
def login_link(**at: Any) -> None:
    """Print an address that logs a browser in to the dashboard.

    Once, and within ten minutes, as the operator whose credential asks for it.
    """
    from ..launch.control import Control

    link = Control(at["coordinator"], "", 0.0, credential=at["credential"]).login_link()
    click.echo(json.dumps({"url": link}, indent=2) if at["as_json"] else link)


@cli.command()
@AT
@click.option(
    "--token-file",
    type=click.File(),
    metavar="FILE",
    help="File with the invitation's token; -: standard input. Default: MICROSFL_TOKEN, or else you are asked.",
)
@click.option("--credential", metavar="FILE", help="Where the credential goes; default: the usual place.")
@AS_JSON
@calls_a_coordinator
def enrol(coordinator: str, token_file: Any, credential: str | None, as_json: bool) -> None:
    """Turn an invitation into a credential.

    The token is for one enrolment. It is no argument of the command, as other users of a machine see those.
    """
    from ..admin.people import enrol
    from ..trust.credential import kept_for
    from .asking import token

    path = Path(credential) if credential else kept_for(coordinator)
    given = enrol(coordinator, token(token_file), path)
    _print_credential(f"Enrolled as '{given.id}'", given.id, path, as_json)


@cli.command()
@AT
@CREDENTIAL
@AS_JSON
@calls_a_coordinator
def rotate(coordinator: str, credential: str | None, as_json: bool) -> None:
    """Give one's credential a new secret.

    The old one is right until the new one is first used, so nothing is lost when this is interrupted. Processes that
    run with the credential's file go on: they read it again.
    """
    from ..admin.people import rotate
    from ..trust.credential import kept_for

    path = Path(credential) if credential else kept_for(coordinator)
    given = rotate(path)
    _print_credential(f"'{given.id}' has a new secret", given.id, path, as_json)


def _people(at: dict[str, Any]) -> Any:
    from ..admin.people import People

    return People(at["coordinator"], at["credential"])


def _print_credential(what: str, name: str, path: Path, as_json: bool) -> None:
    found = {"id": name, "credential": str(path)}
    click.echo(json.dumps(found, indent=2) if as_json else f"{what}; the credential is in {path}.")
