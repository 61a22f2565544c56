"""RunSpec: everything that decides a run's result, in one immutable, serializable value.

The specification travels as JSON and is stored once per run (`run.json`). This module imports no torch: the
coordinator and the command line check it before any tensor exists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import ValidationError, model_validator

from ..errors import InvalidId, InvalidSetting
from ..schema import Table, setting_error
from .names import (
    AVERAGES,
    DATASETS,
    DEVICE_PATTERN,
    ID_PATTERN,
    MODELS,
    OPTIMIZERS,
    PARTITIONS,
    REDUCTIONS,
    SERVER_OPTIMIZERS,
    check_id,
)  # fmt: skip
from .sense import refuse_senseless
from .strategy import OptimizerTable, StrategyTable
from .tables import (
    DataTable,
    LimitsTable,
    ModelTable,
    PrivacyTable,
    RayTable,
    RecordsTable,
    RunTable,
    ServersTable,
    StoreTable,
    WireTable,
)  # fmt: skip
from .traits import TRAITS, Traits

__all__ = [
    "AVERAGES", "DATASETS", "DEVICE_PATTERN", "ID_PATTERN", "MODELS", "OPTIMIZERS", "PARTITIONS", "REDUCTIONS",
    "SERVER_OPTIMIZERS", "TRAITS", "OptimizerTable", "RunSpec", "StrategyTable", "Traits", "check_id",
]  # fmt: skip


# About what travels in one request: less, and the request costs more than its content; more brings nothing
# (docs/concepts/performance.md).
UNIT_BYTES = 256 * 1024
UNIT_BATCHES = 64


class RunSpec(Table):
    """A whole run. Immutable; equal specifications are equal values."""

    run: RunTable = RunTable()
    data: DataTable = DataTable()
    model: ModelTable = ModelTable()
    strategy: StrategyTable = StrategyTable()
    privacy: PrivacyTable = PrivacyTable()
    wire: WireTable = WireTable()
    limits: LimitsTable = LimitsTable()
    servers: ServersTable = ServersTable()
    ray: RayTable = RayTable()
    store: StoreTable = StoreTable()
    records: RecordsTable = RecordsTable()

    @model_validator(mode="after")
    def _cut_fits_shape(self) -> Self:
        if self.model.u_shaped and self.model.cut != "auto" and len(self.model.cut) != 2:
            raise ValueError(
                f"model.cut = {list(self.model.cut)} names one layer, but a U-shaped cut needs two, the last of the "
                "front and the last of the body; or set model.u_shaped = false."
            )
        return self

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        refuse_senseless(self.run, self.data, self.model, self.strategy, self.privacy, self.wire, self.limits)
        return self

    @property
    def participants(self) -> int:
        """How many clients train in a round."""
        return self.run_clients if self.run.participants == "all" else self.run.participants

    @property
    def run_clients(self) -> int:
        """How many clients the run has."""
        return 1 if self.strategy.traits.pooled else self.data.clients

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> RunSpec:
        """The specification from nested tables.

        Raises:
            UnknownSetting: for a key that does not exist; the message names the nearest right one.
            InvalidSetting: for a value that is not allowed; the message names it and what would be right.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise setting_error(cls, error, "microsfl config --show") from None
        except InvalidId as error:
            raise InvalidSetting(f"run.name: {error}") from None

    def resolved(self, *, input_shape: Sequence[int], classes: int) -> RunSpec:
        """The specification with every `auto` that decides a result replaced by its value."""
        strategy, model = self.strategy, self.model
        staleness = 4 * self.data.clients if isinstance(strategy.sync, int) else 0
        return self.model_copy(
            update={
                "model": model.model_copy(
                    update={
                        "input_shape": tuple(input_shape) if model.input_shape == "auto" else model.input_shape,
                        "classes": classes if model.classes == "auto" else model.classes,
                    }
                ),
                "strategy": strategy.model_copy(
                    update={
                        "unit": self._auto_unit() if strategy.unit == "auto" else strategy.unit,
                        "max_staleness": staleness if strategy.max_staleness == "auto" else strategy.max_staleness,
                    }
                ),
            }
        )

    def with_units_of(self, sample_bytes: int) -> RunSpec:
        """The specification with units sized for activations of `sample_bytes` a sample.

        As many batches as make about `UNIT_BYTES`, at most `UNIT_BATCHES`; with `sync = K` no more than its share of K,
        so that every client has a part in a commit.
        """
        most = self._auto_unit()
        batches = UNIT_BYTES // max(1, sample_bytes * self.data.batch_size)
        unit = min(max(1, batches), most if isinstance(self.strategy.sync, int) or most == 1 else UNIT_BATCHES)
        return self.model_copy(update={"strategy": self.strategy.model_copy(update={"unit": unit})})

    def _auto_unit(self) -> int:
        """Where the size of activations is not known."""
        strategy = self.strategy
        if strategy.front_update == "batch" or strategy.traits != TRAITS["filesync"]:
            return 1
        if strategy.sync == "round":
            return 16
        return max(1, strategy.sync // self.data.clients)

    @property
    def unresolved(self) -> tuple[str, ...]:
        """The settings that decide a result and still say `auto`; a run exists only with none."""
        deciding = {
            "model.input_shape": self.model.input_shape,
            "model.classes": self.model.classes,
            "strategy.unit": self.strategy.unit,
            "strategy.max_staleness": self.strategy.max_staleness,
        }
        return tuple(name for name, value in deciding.items() if value == "auto")

    @property
    def decisive(self) -> RunSpec:
        """What decides the result of an undisturbed run: not where and on how many processes it is computed, and not
        how long it waits for whom."""
        patience = RunTable().model_dump(include={"deadline_s", "quorum", "give_up_s"})
        run = self.run.model_copy(update=patience)
        data = self.data.model_copy(update={"path": None})
        model = self.model.model_copy(update={"front_weights": None})
        kept = {"strategy": self.strategy, "privacy": self.privacy, "wire": self.wire, "limits": self.limits}
        return RunSpec(run=run, data=data, model=model, **kept)

    def to_json(self) -> str:
        """Canonical JSON: equal specifications give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
