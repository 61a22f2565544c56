"""What a shell completes after TAB: names of runs, of roles and of settings. Asks quickly, and never fails."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem

ASK_S = 0.5  # for the coordinator's list of runs, while a person waits


def complete_run(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Run folders in --folder, runs at the coordinator, and folders by their path."""
    from ..errors import MicrosflError
    from ..watch.find import Asked
    from ..watch.folder import run_folders

    given = context.params
    asked = Asked(given.get("coordinator"), given.get("folder") or Path("runs"), given.get("credential"))
    names = {folder.path.name for folder in run_folders(asked.folder)}
    with suppress(MicrosflError):
        names |= {str(one["name"]) for one in asked.runs(ASK_S) or []}
    found = [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="dir")]


def complete_folder(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A folder, where a URL would do as well."""
    return [CompletionItem(incomplete, type="dir")]


def complete_role(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The roles, and the processes of the run folder that was named."""
    from ..launch.options import ROLES
    from ..watch.folder import SeenFolder

    run, below = str(context.params.get("run") or ""), context.params.get("folder") or Path("runs")
    folders = [SeenFolder(path) for path in (Path(run), below / run) if run and path.is_dir()]
    names = {*ROLES, *(path.stem for folder in folders for path in folder.logs.glob("*.log"))}
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def complete_setting(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """KEY= of every setting of a run, with what it means."""
    from ..schema import settings
    from ..spec import RunSpec

    keys = [(f"{name}=", field.description or "") for name, field in settings(RunSpec)]
    return [CompletionItem(key, help=meaning) for key, meaning in keys if key.startswith(incomplete)]
