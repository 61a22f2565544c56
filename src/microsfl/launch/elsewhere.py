"""A run on a coordinator that is there already, with servers and clients that others started; the results come here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from ..errors import OperationError, RunFailed
from ..spec import RunSpec
from .control import Control
from .kept import Kept
from .preflight import check_matplotlib, resolve
from .progress import progress
from .results import Results, write_results
from .run_folder import RunFolder, default_path
from .summary import settled_in
from .supervisor import Supervisor

WATCH_S = 1.0
FIRST_ANSWER_S = 10.0  # for a coordinator that is not there, which is most likely a wrong address

Json = dict[str, Any]


class Elsewhere:
    """The run as `progress` shows it. There are no processes of it here."""

    def __init__(self, spec: RunSpec, control: Control) -> None:
        self.spec, self.control = spec, control
        self.children: list[Kept] = []
        self.supervisor = Supervisor((), 0, lambda: None)

    def begin(self) -> None:
        """Create and start the run; of no effect on one that was started before with the same specification.

        Raises:
            RunExists: when there is one of this name with another specification.
            InputError: whatever a server has against the specification.
            Unreachable: when there is no coordinator, or a server that the run needs does not answer.
        """
        self.control.create_or_find(self.spec)
        # It is there. From now on it may be away for as long as a restart takes.
        self.control = Control(self.control.url, self.control.name, credential=self.control.credential)
        self.control.participants()
        servers = self.spec.servers.model_copy(update={"split": max(1, len(self.control.split_servers))})
        self.spec = self.spec.model_copy(update={"servers": servers})

    def follow(self) -> Iterator[Json]:
        """The run now and after each change, until it finished.

        Raises:
            RunFailed: when it ends otherwise.
        """
        run = self.control.watch(0, 0.0)
        while True:
            yield run
            if run["state"] == "finished":
                return
            if run["state"] in ("failed", "stopped"):
                why = run["reason"] or "it was stopped"
                raise RunFailed(f"Run '{run['name']}' {run['state']} in round {run['round']}: {why}")
            run = self.control.watch(run["revision"], WATCH_S)


def train_elsewhere(
    coordinator: str, spec: RunSpec, output: Path | None, credential: str | None = None
) -> tuple[Json, list[Json], Path]:
    """Run `spec` on the coordinator at this URL and fill a run folder here; the summary, the metrics and the folder.

    The run belongs to the coordinator: when this process is stopped, it goes on, and the same call follows it again.
    credential: file of the one to show; default: the one kept for the coordinator.

    Raises:
        InputError, RunFailed: see `Elsewhere`.
    """
    check_matplotlib("`microsfl run` draws its plots")
    run = Elsewhere(resolve(spec), Control(coordinator, spec.run.name, FIRST_ANSWER_S, credential=credential))
    run.begin()
    try:
        with progress(run) as show:
            for now in run.follow():
                show({**now, "waiting": _waiting(run, now)})
    except KeyboardInterrupt:
        click.echo(f"The run goes on at {coordinator}; the same command follows it again.", err=True)
        raise
    return _results(run, RunFolder(output or default_path(spec.run.name)))


def _waiting(run: Elsewhere, now: Json) -> str:
    """Who is missing before a run begins; "" once it has begun."""
    if now["clients"] or now["state"] == "finished":
        return ""
    with suppress(OperationError):
        there = [one["id"] for one in run.control.participants() if one["role"] == "client" and one["alive"]]
        found = f": {', '.join(sorted(there))}" if there else ""
        return f"waiting for {run.spec.run_clients} clients; {len(there)} there{found}"
    return ""


def _results(run: Elsewhere, folder: RunFolder) -> tuple[Json, list[Json], Path]:
    from .model_files import fetched  # torch

    folder.logs.rmdir()  # they are where the processes are
    folder.write_spec(run.spec)
    metrics, rounds = run.control.metrics(), run.control.rounds()
    folder.write_metrics(metrics)
    folder.write_profile(run.control.profile())
    asked = {"coordinator": run.control.url, "credential": run.control.credential, "folder": str(folder.model)}
    fetched({"spec": run.spec.model_dump(mode="json"), **asked})
    results = Results(run.spec, rounds, metrics, folder.read_model(), settled_in(rounds), None)
    return write_results(folder, results), metrics, folder.path
