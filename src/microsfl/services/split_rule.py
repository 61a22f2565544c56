"""What a run's specification says about the sync of its body."""

from __future__ import annotations

from ..core.norms import Bound
from ..core.reduce import OptimizerRule, StepRule
from ..core.schedule import Schedule
from ..errors import InvalidSetting
from ..spec import RunSpec
from ..sync.body import SyncRule


def rule_of(spec: RunSpec) -> SyncRule:
    """When and how contributions to the body become versions.

    Raises:
        InvalidSetting: when the run has no body, or leaves open what has to be known.
    """
    run, strategy = spec.run, spec.strategy
    if not strategy.traits.split:
        raise InvalidSetting(
            f"strategy.name = '{strategy.name}' does not cut the model: a split server has no work in run '{run.name}'."
        )
    if strategy.max_staleness == "auto" or strategy.unit == "auto":
        raise InvalidSetting("strategy.max_staleness and strategy.unit must be numbers once a run exists, not 'auto'.")
    step = StepRule(
        OptimizerRule(strategy.body_optimizer.name, strategy.body_optimizer.options),
        Schedule.of(strategy, run.rounds),
        strategy.reduce,
        strategy.staleness_discount,
        strategy.clip_norm,
    )
    bound = Bound(spec.limits.max_norm, spec.limits.on_excess == "clip")
    turns, unit = strategy.traits.turns, strategy.unit
    return SyncRule(strategy.commit_batches, turns, strategy.max_staleness, unit, step, bound)
