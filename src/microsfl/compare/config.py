"""What is compared: the table [compare] of a configuration file, beside the tables of an ordinary run.

Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, ValidationError, model_validator

from ..errors import InvalidSetting, did_you_mean
from ..launch.options import read_toml
from ..schema import Table, assign, setting_error
from ..spec import PARTITIONS, TRAITS
from ..spec.names import Positive, known

# What a method may set otherwise than the base. All else decides data or initial weights, which are the same for all.
OF_A_METHOD = {
    "run": {"rounds", "deadline_s", "quorum", "give_up_s"},
    "data": {"batch_size"},
    "model": {"cut", "u_shaped", "front_weights"},
    "strategy": None,
    "privacy": None,
    "wire": None,
    "servers": None,
}
SEED = Annotated[StrictInt, Field(ge=0, lt=2**31)]


def _not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("the list is empty; give one value or more, or leave it out.")
    seen: list[Any] = []
    for value in values:
        if value in seen:
            raise ValueError(f"{value} is there twice; name each once.")
        seen.append(value)
    return values


Several = AfterValidator(_not_empty)


class PartitionTable(Table):
    """A division of the data; what it does not say is as in the table [data]."""

    partition: Annotated[str, known(PARTITIONS, import_path=False)] = Field(description="Its name.")
    alpha: float | None = Field(None, gt=0, allow_inf_nan=False, description="For the Dirichlet partitions.")
    shards_per_client: Positive | None = Field(None, description="For partition = shards.")

    @property
    def given(self) -> dict[str, Any]:
        """Its settings in the table [data]."""
        return self.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _takes_its_settings(self) -> Self:
        if self.alpha is not None and not self.partition.startswith("dirichlet"):
            raise ValueError(f"alpha means nothing for partition = '{self.partition}': leave it out.")
        if self.shards_per_client is not None and self.partition != "shards":
            raise ValueError(f"shards_per_client means nothing for partition = '{self.partition}': leave it out.")
        return self


def _by_name(value: Any) -> Any:
    return {"partition": value} if isinstance(value, str) else value


class MethodTable(Table):
    """A method: tables that go before those of the base."""

    label: str | None = Field(None, min_length=1, max_length=40, description="Its name in tables and plots.")
    run: dict[str, Any] = Field(default_factory=dict, description="Of [run]: rounds and patience.")
    data: dict[str, Any] = Field(default_factory=dict, description="Of [data]: batch_size.")
    model: dict[str, Any] = Field(
        default_factory=dict, description="Of the table [model]: cut, u_shaped, front_weights."
    )
    strategy: dict[str, Any] = Field(default_factory=dict, description="The table [strategy].")
    privacy: dict[str, Any] = Field(default_factory=dict, description="The table [privacy].")
    wire: dict[str, Any] = Field(default_factory=dict, description="The table [wire].")
    servers: dict[str, Any] = Field(default_factory=dict, description="The table [servers].")

    @property
    def tables(self) -> dict[str, dict[str, Any]]:
        return {name: getattr(self, name) for name in OF_A_METHOD if getattr(self, name)}

    @model_validator(mode="after")
    def _leaves_the_data_alone(self) -> Self:
        for table, allowed in OF_A_METHOD.items():
            for key in getattr(self, table):
                if allowed is not None and key not in allowed:
                    raise ValueError(
                        f"{table}.{key} cannot be a method's own, as all methods have the same data and the same "
                        f"initial weights; of [{table}] a method may set {', '.join(sorted(allowed))}."
                    )
        return self


class CompareTable(Table):
    methods: Annotated[tuple[str, ...], Several] = Field(
        tuple(TRAITS), description="Strategies, or names of [compare.method.NAME] tables. Default: every strategy."
    )
    partitions: Annotated[
        tuple[Annotated[PartitionTable, BeforeValidator(_by_name)], ...] | None,
        AfterValidator(lambda value: value if value is None else _not_empty(value)),
    ] = Field(None, description='As "iid" or {partition = "dirichlet-label", alpha = 0.5}. Default: as [data] says.')
    clients: Annotated[
        tuple[Positive, ...] | None, AfterValidator(lambda value: value if value is None else _not_empty(value))
    ] = Field(None, description="Numbers of clients. Default: data.clients.")
    participants: Annotated[
        tuple[Literal["all"] | Positive, ...] | None,
        AfterValidator(lambda value: value if value is None else _not_empty(value)),
    ] = Field(None, description='Clients that train in a round, each a number or "all". Default: run.participants.')
    seeds: Annotated[tuple[SEED, ...], Several] = Field(
        (0, 1, 2), description="Each decides partition, initial weights and order for all methods."
    )
    target_accuracy: float | None = Field(
        None, gt=0, le=1, description="Report after how many rounds this test accuracy was reached."
    )
    method: dict[str, MethodTable] = Field(default_factory=dict, description="Methods by name.")

    @model_validator(mode="after")
    def _methods_exist(self) -> Self:
        for name in self.methods:
            if name not in TRAITS and name not in self.method:
                raise ValueError(
                    f"methods: '{name}' is neither a strategy nor a [compare.method.{name}] table."
                    f"{did_you_mean(name, [*TRAITS, *self.method])}"
                )
        labels = [self.label_of(name) for name in self.methods]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"methods: two of them have the label '{label}'.")
        return self

    def label_of(self, method: str) -> str:
        """How tables and plots name it."""
        table = self.method.get(method)
        return table.label if table is not None and table.label is not None else method


class _Root(Table):
    """Where the table stands, so that errors name its settings in full."""

    compare: CompareTable = CompareTable()


@dataclass(frozen=True)
class Comparison:
    """compare: what is compared. base: the other tables, as they were written. values: all, as they were written."""

    compare: CompareTable
    base: Mapping[str, Any]
    values: Mapping[str, Any]


def read_comparison(file: Path | None, assignments: Iterable[str] = ()) -> Comparison:
    """The comparison in `file` (none: every strategy with its defaults), with `key=value` assignments on top.

    Raises:
        UnknownSetting, InvalidSetting: naming what is wrong and what would be right.
    """
    values = read_toml(file) if file is not None else {}
    for assignment in assignments:
        assign(values, assignment)
    return parse_comparison(values)


def parse_comparison(values: Mapping[str, Any]) -> Comparison:
    """The comparison from nested tables; the base is checked with each cell, as what it may say depends on the method.

    Raises:
        UnknownSetting, InvalidSetting.
    """
    try:
        text = json.dumps(values)
    except TypeError:
        raise InvalidSetting("A date or time stands in the configuration; no setting takes one.") from None
    base = {name: table for name, table in values.items() if name != "compare"}
    for name, table in base.items():
        if not isinstance(table, dict):
            raise InvalidSetting(f"{name} must be a table, [{name}].")
    for name in ("store", "records"):
        if base.get(name):
            raise InvalidSetting(f"[{name}]: every cell has stores and records of its own; leave the table out.")
    if base.get("run", {}).get("managed") is False:
        raise InvalidSetting("run.managed = false is for training loops of your own, which cannot be compared.")
    try:
        root = _Root.model_validate({"compare": values.get("compare", {})})
    except ValidationError as error:
        raise setting_error(_Root, error, "microsfl compare --help") from None
    return Comparison(root.compare, base, json.loads(text))
