"""For the coordinator, which imports no torch: what `microsfl config` and the rehearsal of a run find."""

from __future__ import annotations

from typing import Any

from ..errors import DatasetNotFound
from ..spec import RunSpec
from ..zoo.deal import OWN
from .preflight import resolve

Json = dict[str, Any]


def checked(question: Json) -> Json:
    """From `spec` to the resolved `spec` and `class_counts`: train samples of each client, by class.

    The counts are null where each site brings data of its own, or where the data is not here: nobody is asked for it.

    Raises:
        InputError: what is wrong with the specification.
    """
    spec, counts = resolve(RunSpec.parse(question["spec"])), None
    if spec.data.partition != OWN:
        from .rehearsal import rehearse  # torch, which takes longer than to find most of what may be wrong

        try:
            counts = rehearse(spec, devices=False).class_counts.tolist()  # the devices are those of other machines
        except DatasetNotFound:
            counts = None
    return {"spec": spec.model_dump(mode="json"), "class_counts": counts}
