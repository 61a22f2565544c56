"""`microsfl run --simulate`: the run folder that `microsfl run` writes, of a run in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import InputError, NotFinite
from ..launch.preflight import check_matplotlib, resolve
from ..launch.progress import line, title
from ..launch.results import write_results
from ..launch.run_folder import RunFolder, default_path, write_parts
from ..launch.training import DRAWS
from ..spec import RunSpec
from ..tracking import check_trackers
from ..tracking.follower import tracked
from .simulation import alone, simulate

Json = dict[str, Any]


def train(spec: RunSpec, output: Path | None, *, track: Sequence[str] = ()) -> tuple[Json, list[Json], Path]:
    """Simulate `spec` and fill the run folder; the summary, the metrics (a row for each round and client), the folder.

    track: "tensorboard" and "mlflow", which are told of the run while it lives.

    Raises:
        InputError: when something is wrong with the specification or the folder. No folder is left then.
        NotFinite: when training diverges.
    """
    check_matplotlib(DRAWS)
    check_trackers(track)
    spec = alone(resolve(spec))
    folder = RunFolder(output or default_path(spec.run.name))
    folder.write_note()
    folder.write_spec(spec)
    click.echo(f"{title(spec)}, simulated in one process", err=True)
    with tracked(track, spec, folder.path) as follower:
        history: list[Json] = []

        def on_round(row: Json, metrics: list[Json]) -> None:
            click.echo(line(row, spec.run.rounds), err=True)
            history.append(row)
            follower.follow(history, lambda: metrics)

        try:
            done = simulate(spec, on_round=on_round, is_resolved=True)
        except InputError as error:
            if isinstance(error, NotFinite):
                follower.follow(history, list)  # it began, if it has no round yet
            else:
                folder.discard()
            raise
        folder.write_metrics(done.metrics)
        folder.write_profile(done.profile)
        write_parts(folder.model, done.model)
        summary = write_results(folder, done, simulated=True)
    return summary, done.metrics, folder.path
