"""From what somebody fills in to a specification that a run can be created from, checked as `microsfl run` does."""

from __future__ import annotations

import asyncio
from typing import Any

from cachetools import LRUCache

from ..errors import ModelNotAllowed, Overloaded
from ..spec import RunSpec
from .errand import errand

CHECKED = "microsfl.launch.checked:checked"
WITHIN_S = 120.0
AT_A_TIME = 2
WAITING = 8  # for one of these; who comes then is to come again
REMEMBERED = 256

Json = dict[str, Any]


class Resolver:
    """Resolves specifications, in processes of their own.

    allow_models, allow_datasets: functions that these may import; a specification that names others is refused.
    """

    def __init__(self, allow_models: tuple[str, ...] = (), allow_datasets: tuple[str, ...] = ()) -> None:
        self._allowed = {"allow_models": allow_models, "allow_datasets": allow_datasets}
        self._places, self._open = asyncio.Semaphore(AT_A_TIME), 0
        self._counts: LRUCache[str, list[list[int]]] = LRUCache(REMEMBERED)

    async def resolve(self, values: Json) -> RunSpec:
        """The specification with every `auto` that decides the result replaced by its value.

        Raises:
            InputError: what `microsfl config` or the check before a run has against it, in the same words.
            ModelNotAllowed: for a function that is not allowed here.
            Overloaded: when as many are being checked, and wait for it, as there may be.
            OperationError: when it could not be checked.
        """
        spec = RunSpec.parse(values)
        self._check_allowed(spec.model.name, "allow_models")
        self._check_allowed(spec.data.dataset, "allow_datasets")
        answer = await self._checked({"spec": spec.model_dump(mode="json")})
        resolved = RunSpec.parse(answer["spec"])
        if answer["class_counts"] is not None:
            self._counts[resolved.decisive.to_json()] = answer["class_counts"]
        return resolved

    async def _checked(self, asked: Json) -> Json:
        if self._open >= AT_A_TIME + WAITING:
            raise Overloaded(f"{self._open} specifications are being checked, or wait for it.")
        self._open += 1
        try:
            async with self._places:
                return await errand(CHECKED, asked, WITHIN_S)
        finally:
            self._open -= 1

    def class_counts(self, spec: RunSpec) -> list[list[int]] | None:
        """How the data of a specification is divided, if that was seen when it was resolved."""
        return self._counts.get(spec.decisive.to_json())

    def _check_allowed(self, name: str, setting: str) -> None:
        if ":" in name and name not in self._allowed[setting]:
            raise ModelNotAllowed.of(name, setting)
