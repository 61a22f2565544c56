"""A plan: everything that is said of a run before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

from ..errors import InvalidSetting
from .advice import bottleneck
from .calibration import Calibration
from .demands import CLIENT_LEASE_S, coordinator_s
from .prediction import COORDINATOR, FED, Prediction, predict, replicas_for
from .quantities import shown_bytes, shown_seconds
from .site import Site
from .volume import Volume, cost, volume
from .workload import Workload

MB = 1e6


@dataclass(frozen=True)
class Memory:
    """Bytes of a split server: the process, versions of the body, and graphs of clients that are at work, if all were
    kept; bound: what the cache keeps of them (servers.graph_cache_mb)."""

    process: float
    weights: float
    graphs: float
    bound: float

    @property
    def total(self) -> float:
        return self.process + self.weights + min(self.graphs, self.bound)


@dataclass(frozen=True)
class Plan:
    """auto: whether the number of split servers was looked for; within_s: what a round may take then."""

    workload: Workload
    calibration: Calibration
    site: Site
    prediction: Prediction
    volume: Volume
    memory: Memory
    dollars: float
    bottleneck: tuple[str, str]
    auto: bool = False
    within_s: float | None = None

    @property
    def rounds(self) -> int:
        return self.workload.spec.run.rounds

    @property
    def seconds(self) -> float:
        """Of the run's rounds, without what comes before and after them."""
        return self.rounds * self.prediction.round

    @property
    def warnings(self) -> list[str]:
        """What would make a run other than it is planned."""
        found, memory = [], self.memory
        waits_s = coordinator_s(self.workload, self.calibration, self.site, self.workload.evaluating)
        if waits_s > CLIENT_LEASE_S:
            found.append(
                f"The coordinator needs {shown_seconds(waits_s)} for a task of every client. Whoever has waited for it "
                f"for {CLIENT_LEASE_S:g} s counts as lost, so that this run would not go on as planned."
            )
        if memory.graphs > memory.bound:
            found.append(
                f"The graphs of all units under way are {shown_bytes(memory.graphs)}, more than servers.graph_cache_mb "
                f"= {memory.bound / MB:g} keeps: some backwards would compute their forward again, which is not in the "
                "seconds above."
            )
        return found

    def to_json(self, simulated: Mapping[str, float] | None = None) -> Any:
        """Every number, in seconds, bytes and dollars; null for what has no end."""
        found = self.prediction
        values = {
            "rounds": self.rounds,
            "clients": len(self.workload.train),
            "replicas": self.site.replicas,
            "shared_cores": self.site.cores,
            "round_s": found.round,
            "run_s": self.seconds,
            "parts_s": {
                "training": found.training,
                "exchange": found.exchange,
                "sync": found.sync,
                "evaluation": found.evaluation,
            },
            "unit_s": found.unit,
            "unit_alone_s": found.alone,
            "demands": asdict(found.demands),
            "utilisation": found.utilisation,
            "coordinator_requests_per_s": found.polls,
            "bottleneck": {"is": self.bottleneck[0], "removed_by": self.bottleneck[1]},
            "volume_of_a_round": asdict(self.volume),
            "split_server_memory": {**asdict(self.memory), "total": self.memory.total},
            "dollars": self.dollars,
            "warnings": self.warnings,
            "calibration": asdict(self.calibration),
        }
        if simulated is not None:
            values["simulated"] = dict(simulated)
        return _finite(values)


def make(
    workload: Workload,
    calibration: Calibration,
    site: Site,
    within_s: float | None = None,
    utilisation: float | None = None,
    *,
    auto: bool = False,
) -> Plan:
    """Raises InvalidSetting when no number of split servers is enough."""
    if auto:
        found = replicas_for(workload, calibration, site, within_s=within_s, utilisation=utilisation)
        if found is None:
            raise InvalidSetting(_never(workload, calibration, site, within_s))
        site = replace(site, replicas=found)
    prediction = predict(workload, calibration, site)
    moved = volume(workload, site)
    rounds = workload.spec.run.rounds
    return Plan(
        workload=workload,
        calibration=calibration,
        site=site,
        prediction=prediction,
        volume=moved,
        memory=_memory(workload, calibration, site),
        dollars=cost(moved, rounds, prediction.round * rounds, site.prices) if isfinite(prediction.round) else 0.0,
        bottleneck=bottleneck(prediction, workload, calibration, site),
        auto=auto,
        within_s=within_s,
    )


def _memory(workload: Workload, calibration: Calibration, site: Site) -> Memory:
    sizes, servers = workload.sizes, workload.spec.servers
    if not workload.spec.strategy.traits.split:
        return Memory(0, 0.0, 0.0, 0.0)
    at_once = -(-len(workload.train) // site.replicas) if not workload.spec.strategy.traits.turns else 1
    version = sizes.body + sizes.body_optimizer
    return Memory(
        process=calibration.resident,
        weights=min(servers.weights_cache_mb * MB, 2.0 * version),  # that of the round, and the one before
        graphs=float(at_once * sizes.graph),
        bound=servers.graph_cache_mb * MB,
    )


def _never(workload: Workload, calibration: Calibration, site: Site, within_s: float | None) -> str:
    least = predict(workload, calibration, replace(site, replicas=1 << 14))
    what = least.utilisation
    busy = max((COORDINATOR, FED), key=lambda name: what.get(name, 0.0))
    if within_s is None:
        return "No number of split servers up to 16,384 is busy for so small a share of the time; allow more."
    return (
        f"No number of split servers makes a round that short: with 16,384 it takes {shown_seconds(least.round)}, and "
        f"the {busy} is busy for {what.get(busy, 0.0):.0%} of it. Allow more than --round-within {within_s:g}s."
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value
