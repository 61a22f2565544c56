"""Cells: every method with every partition, number of clients, number of participants and seed, as a run each."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from ..errors import InputError, InvalidId, InvalidSetting
from ..spec import TRAITS, RunSpec, StrategyTable, check_id
from ..spec.sense import senseless
from ..spec.tables import DataTable, RunTable
from .config import Comparison, MethodTable, PartitionTable

Values = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of the comparison.

    id: names its folder and its run. dropped: settings of the base that mean nothing for the method, with the reason.
    """

    id: str
    method: str
    label: str
    partition: str
    clients: int
    participants: Literal["all"] | int
    seed: int
    spec: RunSpec
    dropped: Mapping[str, str]

    @property
    def group(self) -> tuple[str, int, str]:
        """What its data are like: partition, clients, participants."""
        return self.partition, self.clients, str(self.participants)

    @property
    def work(self) -> RunSpec:
        """All that its result may depend on: equal for cells that are run once for all of them, as that of one client
        with the data of all is, however the others divide them."""
        data = self.spec.data
        if self.spec.strategy.traits.pooled:
            undivided = ("clients", "partition", "alpha", "shards_per_client")
            data = data.model_copy(update={name: DataTable.model_fields[name].default for name in undivided})
        run = self.spec.run.model_copy(update={"name": RunTable.model_fields["name"].default})
        return self.spec.model_copy(update={"run": run, "data": data})


def cells(comparison: Comparison) -> list[Cell]:
    """All cells. Those of one seed, partition and number of clients have the same data and the same initial weights.

    Raises:
        UnknownSetting, InvalidSetting: naming the cell or method whose specification is wrong, and what is wrong.
    """
    compare = comparison.compare
    partitions: tuple[PartitionTable | None, ...] = compare.partitions or (None,)
    grid = product(partitions, compare.clients or (None,), compare.participants or (None,), compare.methods)
    # Seeds go slowest, so that a comparison that is stopped early has whole columns.
    found = [_cell(comparison, *place, seed) for seed, place in product(compare.seeds, list(grid))]
    ids = [cell.id for cell in found]
    for cell in found:
        if ids.count(cell.id) > 1:
            raise InvalidSetting(f"compare.partitions: two of them come to '{cell.partition}'; name each once.")
    return found


def _cell(
    comparison: Comparison,
    partition: PartitionTable | None,
    clients: int | None,
    participants: Literal["all"] | int | None,
    method: str,
    seed: int,
) -> Cell:
    compare = comparison.compare
    table = compare.method.get(method, MethodTable())
    values: Values = copy.deepcopy(dict(comparison.base))
    _merge(values, {"data": partition.given} if partition is not None else {})
    _merge(values, {"data": {"clients": clients}} if clients is not None else {})
    _merge(values, {"run": {"participants": participants}} if participants is not None else {})
    name = _strategy(values, method, table)
    dropped = dict(_drop(values, table, name))
    _merge(values, table.tables)
    _merge(values, {"strategy": {"name": name}, "run": {"seed": seed}})
    front = values.get("model", {}).get("front_weights")
    if isinstance(front, str):  # what is public, and so may train a front, is drawn by the seed
        values["model"]["front_weights"] = front.replace("{seed}", str(seed))
    label = compare.label_of(method)
    try:
        spec = RunSpec.parse(values)
    except InputError as error:
        raise type(error)(f"Method '{label}': {error}") from None
    shown = _shown(spec)
    training = participants if participants is not None else comparison.base.get("run", {}).get("participants", "all")
    identity = f"{method}_{shown}_c{spec.data.clients}_{training}_s{seed}"
    try:
        check_id(identity)
    except InvalidId:
        raise InvalidSetting(
            f"compare.methods: '{method}' cannot name a folder: use letters, digits and '-', and a short name; "
            'label = "…" is for the tables and plots.'
        ) from None
    run = spec.run.model_copy(update={"name": identity})
    return Cell(
        identity, method, label, shown, spec.data.clients, training, seed, spec.model_copy(update={"run": run}), dropped
    )


def _shown(spec: RunSpec) -> str:
    data = spec.data
    values = {"dirichlet-label": data.alpha, "dirichlet-size": data.alpha, "shards": data.shards_per_client}
    value = values.get(data.partition)
    return data.partition if value is None else f"{data.partition}-{value:g}"


def _strategy(values: Values, method: str, table: MethodTable) -> str:
    """Name of the strategy: as the method says, else the method's own name, else the base's."""
    default = StrategyTable.model_fields["name"].default
    base = values.get("strategy", {}).get("name", default)
    return str(table.strategy.get("name", method if method in TRAITS else base))


def _drop(values: Values, table: MethodTable, strategy: str) -> Iterator[tuple[str, str]]:
    """Take out of the base what means nothing with such a strategy; (setting, reason) of each.

    What the method itself says stays, to be refused.
    """
    if strategy not in TRAITS:
        return
    of_base = values.get("strategy", {}).get("front_update", StrategyTable.model_fields["front_update"].default)
    front_update = str(table.strategy.get("front_update", of_base))
    for setting, why in senseless(TRAITS[strategy], strategy, front_update).items():
        section, key = setting.split(".")
        if key in values.get(section, {}):
            given = values[section].pop(key)
            if key not in table.tables.get(section, {}) and given not in ("all", "auto"):
                yield setting, why


def _merge(values: Values, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Settings of `tables` go before those in `values`; one that is a table itself, as an optimizer, as a whole."""
    for name, table in tables.items():
        values[name] = {**values.get(name, {}), **copy.deepcopy(dict(table))}
