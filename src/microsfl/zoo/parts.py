"""The parts of a run's model, as every process builds them."""

from __future__ import annotations

from collections.abc import Collection

from ..core.cut import Parts, cut_model
from ..core.unit import seed_of
from ..errors import InvalidSetting
from ..spec import RunSpec
from .models import build_model


def build_parts(spec: RunSpec, allowed: Collection[str]) -> Parts:
    """Front, body and tail with the run's initial weights: bit-equal in every process.

    Args:
        spec: resolved. allowed: import paths of model factories that this process may call.

    Raises:
        InvalidSetting, ModelNotAllowed, UnknownLayer, InvalidCut.
    """
    model = spec.model
    if model.input_shape == "auto" or model.classes == "auto":
        raise InvalidSetting(
            "model.input_shape and model.classes must be known; 'auto' is resolved before a run starts."
        )
    seed = seed_of("model", spec.run.seed)
    whole = build_model(model.name, input_shape=model.input_shape, classes=model.classes, seed=seed, allowed=allowed)
    return cut_model(whole, model.cut, u_shaped=model.u_shaped)
