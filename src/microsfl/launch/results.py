"""What stays of a finished run: the trained model, the summary and the plots."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.partition import IntArray
from ..spec import RunSpec
from ..store.objects import open_store
from ..store.s3 import area_environment
from ..sync import keys
from ..sync.commits import Chain, Commit
from .federation import Federation
from .run_folder import RunFolder
from .summary import Settled, commits_of, settled_by, summarize

Json = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """What a run came to.

    rounds, metrics: rows as the coordinator's API has them. model: content of each part's safetensors file. settled: by
    the commits of the body. class_counts: train samples, int64 [clients, classes]; None where nobody here knows them.
    """

    spec: RunSpec
    rounds: list[Json]
    metrics: list[Json]
    model: dict[str, bytes]
    settled: Settled
    class_counts: IntArray | None


def results_of(federation: Federation, rounds: list[Json], metrics: list[Json]) -> Results:
    """What a federation came to, whose processes still answer; model/ is written."""
    spec, folder = federation.spec, federation.folder
    federation.aside(
        "microsfl.launch.model_files:fetched",
        coordinator=federation.coordinator,
        credential=federation.credential,
        folder=str(folder.model),
    )
    commits: list[Commit] = []
    if spec.strategy.traits.split:
        store = open_store(federation.store_url(keys.BODY), area_environment(keys.BODY, os.environ))
        commits = commits_of(Chain(store, spec.run.name, keys.BODY))
    return Results(spec, rounds, metrics, folder.read_model(), settled_by(commits), np.array(federation.class_counts))


def write_results(folder: RunFolder, results: Results, *, simulated: bool = False) -> Json:
    """summary.json and plots/; the summary."""
    from .plots import write_plots

    summary = summarize(
        results.spec, results.rounds, results.metrics, results.settled, results.model, simulated=simulated
    )
    folder.write_summary(summary)
    write_plots(folder.plots, results.rounds, results.metrics, results.class_counts)
    return summary
