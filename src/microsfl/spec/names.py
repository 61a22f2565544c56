"""The names that settings may have, and the form of an id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictInt

from ..errors import InvalidId, did_you_mean

ID_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,63}"

# torch.optim's optimizers that step without a closure and on dense gradients (LBFGS and SparseAdam do not).
OPTIMIZERS = (
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam", "RMSprop",
    "Rprop", "SGD",
)  # fmt: skip
PARTITIONS = ("iid", "dirichlet-label", "dirichlet-size", "shards", "own")
DATASETS = ("digits", "mnist")
MODELS = ("mlp", "linear-front", "cnn", "resnet18")
REDUCTIONS = ("mean-batches", "mean-samples", "sum")
SCHEDULES = ("constant", "cosine", "step")
AVERAGES = ("mean", "median", "trimmed-mean")
SERVER_OPTIMIZERS = ("none", "FedAvgM", "FedAdam", "FedYogi")
# Which split server a client asks.
Spread = Literal["sticky", "random", "two"]
SPREAD = (
    "Which replica a client asks: two, mostly the same one, unless another one, drawn at random, has less to do (with "
    "sflv1, whose copies are dear to move, as sticky); sticky, the same one as long as it answers; random, any."
)
DEVICE_PATTERN = r"^(auto|cpu|mps|cuda(:\d+)?)$"
IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def check_id(value: str, what: str = "id") -> str:
    """`value`, if it can name a run, client or participant in a key, a URL and a file name alike.

    Raises:
        InvalidId: for anything but 1-64 letters, digits, `-`, `_` and single dots, starting with a letter or digit.
    """
    if not re.fullmatch(ID_PATTERN, value):
        shown = repr(value[:40]) + ("…" if len(value) > 40 else "")
        raise InvalidId(
            f"{what} {shown} ({len(value)} characters) is not allowed: use 1 to 64 letters, digits, '-', '_' or "
            "single dots, starting with a letter or a digit."
        )
    return value


def known(names: Sequence[str], *, import_path: bool) -> AfterValidator:
    def check(value: str) -> str:
        if value in names or (import_path and IMPORT_PATH.fullmatch(value)):
            return value
        other = " Or name your own as 'package.module:function'." if import_path else ""
        raise ValueError(f"'{value}' is unknown.{did_you_mean(value, names)}{other}")

    return AfterValidator(check)


Positive = Annotated[StrictInt, Field(ge=1)]
