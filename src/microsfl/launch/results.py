"""What stays of a finished run: the trained model, the summary and the plots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..store.objects import open_store
from ..store.s3 import area_environment
from ..sync import keys
from ..sync.commits import Chain
from .federation import Federation
from .model_files import model_files
from .plots import write_plots
from .summary import commits_of, summarize

Json = dict[str, Any]


def write_results(
    federation: Federation, rounds: Sequence[Json], metrics: Sequence[Json], weights: tuple[bytes | None, bytes | None]
) -> Json:
    """model/, summary.json and plots/; the summary.

    Args:
        weights: the newest weights files of the body and of what clients exchange; None for what the run does not have.
    """
    folder, spec = federation.folder, federation.spec
    model = model_files(*weights, federation.rehearsal.parts)
    folder.write_model(model)
    commits = []
    if spec.strategy.traits.split:
        store = open_store(federation.store_url(keys.BODY), area_environment(keys.BODY, os.environ))
        commits = commits_of(Chain(store, spec.run.name, keys.BODY))
    summary = summarize(spec, rounds, metrics, commits, model)
    folder.write_summary(summary)
    write_plots(folder.plots, rounds, metrics, federation.rehearsal.class_counts)
    return summary
