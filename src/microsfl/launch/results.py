"""What stays of a finished run: the trained model, the summary and the plots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..core.cut import Parts
from ..store.objects import open_store
from ..store.s3 import area_environment
from ..sync import keys
from ..sync.commits import Chain
from ..wire.tensors import decode, encode
from .federation import Federation
from .plots import write_plots
from .summary import commits_of, summarize

Json = dict[str, Any]


def write_results(
    federation: Federation, rounds: Sequence[Json], metrics: Sequence[Json], weights: tuple[bytes, bytes]
) -> Json:
    """model/, summary.json and plots/; the summary."""
    folder, spec = federation.folder, federation.spec
    model = model_files(*weights, federation.rehearsal.parts)
    folder.write_model(model)
    store = open_store(federation.store_url(keys.BODY), area_environment(keys.BODY, os.environ))
    chain = Chain(store, spec.run.name, keys.BODY)
    summary = summarize(spec, rounds, metrics, commits_of(chain), model)
    folder.write_summary(summary)
    write_plots(folder.plots, rounds, metrics, federation.rehearsal.class_counts)
    return summary


def model_files(body: bytes, exchanged: bytes, initial: Parts) -> dict[str, bytes]:
    """The content of front, body and tail's safetensors files.

    Args:
        body: the weights file of its last commit, kept as it is, so that its hash is the commit's.
        exchanged: the weights file of what clients exchange, named front.<…> and tail.<…>.
        initial: the model as the run began; a part that is not exchanged is as it was then.
    """
    tensors = decode(exchanged).tensors
    front = _named(tensors, "front.") or dict(initial.front.state_dict())
    return {"front": encode(front), "body": body, "tail": encode(_named(tensors, "tail."))}


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
