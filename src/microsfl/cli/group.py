"""The group that every command of the command line belongs to."""

from __future__ import annotations

import click

from .. import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="microsfl")
def cli() -> None:
    """Split federated learning on stateless split servers.

    `microsfl run` trains on this machine, with real processes and real data. coordinator, split-server, fed-server and
    client start one role each; the other commands compare runs, look after them, or say what they give away.
    """
