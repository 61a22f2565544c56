"""A run as TensorBoard or MLflow show it, written while it lives."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ..errors import InvalidSetting, OperationError, did_you_mean

TRACKERS = ("tensorboard", "mlflow")


def check_trackers(names: Sequence[str]) -> None:
    """Before anything starts.

    Raises:
        InvalidSetting: for a name that is not known.
        OperationError: when what the name stands for is not installed.
    """
    if isinstance(names, str):
        raise InvalidSetting(f"track is a list of names, as in track=['{names}'].")
    for name in names:
        if name not in TRACKERS:
            raise InvalidSetting(f"track: '{name}' is unknown." + did_you_mean(name, TRACKERS))
        if importlib.util.find_spec(name) is None:
            raise OperationError(f"--track {name} needs what comes with: pip install 'microsfl[{name}]'.")
