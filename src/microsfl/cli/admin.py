"""The commands for whoever looks after a federation."""

from __future__ import annotations

from .admin_certs import certs
from .group import cli


@cli.group()
def admin() -> None:
    """Look after a federation."""


admin.add_command(certs)
