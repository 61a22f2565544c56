"""Settings that make no sense together, refused by name before anything starts."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .strategy import StrategyTable
from .tables import DataTable, LimitsTable, ModelTable, PrivacyTable, RunTable, WireTable
from .traits import Traits

# What a run says that has been resolved, where the default is "auto".
RESOLVED = {"strategy.unit": 1, "strategy.max_staleness": 0}

OF_THE_CUT = (
    "model.cut", "model.u_shaped", "model.front_weights", "strategy.sync", "strategy.reduce", "strategy.clip_norm",
    "strategy.staleness_discount", "strategy.max_staleness", "strategy.unit", "strategy.front_update",
    "strategy.tail_update", "strategy.body_optimizer", "privacy.clip_norm", "privacy.noise_std", "wire.activations",
    "wire.gradients", "wire.error_feedback", "limits.max_norm",
)  # fmt: skip
# These say which layers are frozen, also where nothing is cut.
OF_A_FROZEN_FRONT = ("model.cut", "model.u_shaped", "model.front_weights", "strategy.front_update")
OF_THE_AVERAGE = ("strategy.average", "strategy.server_optimizer")
# (setting of the strategy, setting, value of it that the first one needs)
OF_A_CHOICE = (
    ("trim", "average", "trimmed-mean"), ("step_rounds", "schedule", "step"), ("step_factor", "schedule", "step"),
)  # fmt: skip


def senseless(traits: Traits, name: str, front_update: str) -> dict[str, str]:
    """Settings that mean nothing with such a strategy, each with the reason."""
    found: dict[str, str] = {}
    if not traits.split:
        frozen = OF_A_FROZEN_FRONT if front_update == "never" else ()
        found |= {one: f"{name} does not cut the model" for one in OF_THE_CUT if one not in frozen}
    if traits.body == "copies":
        names = ["strategy.sync", "strategy.reduce", "strategy.staleness_discount", "strategy.max_staleness"]
        found |= dict.fromkeys(names, f"{name} steps each client's copy of the body at each of its units")
    if traits.turns:
        names = ["strategy.sync", "strategy.staleness_discount", "strategy.max_staleness"]
        found |= dict.fromkeys(names, f"{name} commits each unit before the next one begins")
    if traits.client_side == "handed-on":
        names = [*OF_THE_AVERAGE, "limits.max_update_norm"]
        found |= dict.fromkeys(names, f"{name} hands the client-side weights on instead of averaging them")
    if not traits.federated or traits.pooled:
        found |= dict.fromkeys((*OF_THE_AVERAGE, "strategy.proximal_mu"), f"in {name} nothing is averaged")
    if not traits.federated:
        found["limits.max_update_norm"] = f"in {name} no client-side weights leave a client"
        found["run.participants"] = f"in {name} every client trains for itself alone"
    if traits.pooled:
        found["run.participants"] = f"{name} has one client, with the data of all"
    if not traits.auxiliary:
        found["strategy.send_every"] = f"{name} has no auxiliary head; every batch is sent"
    return found


def refuse_senseless(
    run: RunTable,
    data: DataTable,
    model: ModelTable,
    strategy: StrategyTable,
    privacy: PrivacyTable,
    wire: WireTable,
    limits: LimitsTable,
) -> None:
    """Raises ValueError, naming the setting and what would be right."""
    tables = {
        "run": run, "model": model, "strategy": strategy, "privacy": privacy, "wire": wire, "limits": limits,
    }  # fmt: skip
    for setting, why in senseless(strategy.traits, strategy.name, strategy.front_update).items():
        table, key = setting.split(".")
        value = getattr(tables[table], key)
        default = type(tables[table]).model_fields[key].get_default(call_default_factory=True)
        if value != default and not (setting in RESOLVED and value == RESOLVED[setting]):
            raise ValueError(f"{setting} means nothing here, as {why}: leave it out, or choose another strategy.name.")
    for problem in (*_problems(run, data, model, strategy, privacy), *_wire_problems(model, strategy, wire)):
        raise ValueError(problem)
    if limits.on_excess == "clip" and not limits.max_norm and not limits.max_update_norm:
        raise ValueError(
            "limits.on_excess = 'clip' means nothing without limits.max_norm or limits.max_update_norm: leave it out."
        )


def _problems(
    run: RunTable, data: DataTable, model: ModelTable, strategy: StrategyTable, privacy: PrivacyTable
) -> Iterator[str]:
    traits = strategy.traits
    clients = 1 if traits.pooled else data.clients
    training = clients if run.participants == "all" else run.participants
    if training > clients:
        yield f"run.participants = {training} is more than data.clients = {clients}."
    if data.partition == "own" and data.public:
        yield "data.public is set aside before data is divided; with data.partition = 'own' nothing is: leave it out."
    if data.partition == "own" and traits.pooled:
        yield f"strategy.name = '{strategy.name}' pools the data, which data.partition = 'own' leaves where it is."
    if not run.managed and strategy.name != "filesync":
        yield f"strategy.name = '{strategy.name}' needs the coordinator to drive the rounds: use run.managed = true."
    if not run.managed and (privacy.clip_norm or privacy.noise_std or model.front_weights):
        yield (
            "model.front_weights and privacy are for the clients that the coordinator drives; with run.managed = false "
            "your own loop has the front and decides what it sends: leave them out."
        )
    if strategy.average != "mean" and training < 3:
        yield (
            f"strategy.average = '{strategy.average}' of {training} clients is no more robust than their mean; it "
            "takes 3 or more, or average = 'mean'."
        )
    if strategy.average == "trimmed-mean" and math.floor(strategy.trim * training + 1e-9) < 1:
        enough = math.ceil(100 / training) / 100
        yield (
            f"strategy.trim = {strategy.trim:g} of {training} clients cuts nobody off; use {enough:g} or more, or "
            "average = 'mean'."
        )
    for key, choice, needed in OF_A_CHOICE:
        unused = getattr(strategy, key) != StrategyTable.model_fields[key].default
        if unused and getattr(strategy, choice) != needed:
            yield f"strategy.{key} means nothing without strategy.{choice} = '{needed}': leave it out."
    if strategy.staleness_discount and strategy.sync == "round":
        yield "strategy.staleness_discount needs strategy.sync = K: within a round nothing grows stale."
    if traits.auxiliary and strategy.front_update != "batch":
        yield (
            f"strategy.front_update = '{strategy.front_update}' leaves the auxiliary head of {strategy.name} nothing "
            "to do: use 'batch'."
        )
    rhythms = (strategy.front_update, strategy.tail_update if model.u_shaped else "never")
    if strategy.proximal_mu and traits.split and "batch" not in rhythms:
        yield (
            f"strategy.proximal_mu = {strategy.proximal_mu:g} pulls nothing where no part of a client is stepped each "
            "batch: a round's only step begins at the weights that it would pull to. Leave it out, or use 'batch'."
        )
    if strategy.warmup_rounds > run.rounds:
        yield f"strategy.warmup_rounds = {strategy.warmup_rounds} is more than run.rounds = {run.rounds}."
    if model.front_sha256 is not None and not traits.split and strategy.front_update != "never":
        yield "model.front_sha256 says which front a run has, but this strategy has none."
    if privacy.noise_seed == "run" and not privacy.noise_std:
        yield "privacy.noise_seed = 'run' means nothing without privacy.noise_std."


def _wire_problems(model: ModelTable, strategy: StrategyTable, wire: WireTable) -> Iterator[str]:
    """Output gradients travel across a U-shaped cut, cut-layer gradients to a front that learns from them."""
    of_the_front = strategy.front_update != "never" and not strategy.traits.auxiliary
    if wire.gradients != "float32" and not model.u_shaped and not of_the_front:
        yield f"wire.gradients = '{wire.gradients}' means nothing where no gradient crosses the cut: leave it out."
    if not wire.error_feedback and not (model.u_shaped and wire.gradients != "float32"):
        yield (
            "wire.error_feedback is about the output gradients that a client of a U-shaped cut sends, where "
            "wire.gradients is not 'float32': leave it out."
        )
