"""Two short runs by real processes that tell what a unit, a client's round and a sync take.

One client with many units a round, then several clients with few units each. What differs between them is divided
into what comes with a unit, with a client and with a round.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..client.connections import Connections
from ..client.coordinator import Coordinator
from ..client.entitled import Ways
from ..client.http import Http
from ..core.cut import Parts
from ..launch.federation import Federation
from ..launch.forks import Forks
from ..launch.profile_rows import Row, tidy
from ..spec import RunSpec
from ..trust.tls import Outbound
from ..zoo.datasets import load_data, take, takes_client
from ..zoo.deal import client_ids
from ..zoo.parts import build_parts
from .probe_data import NAME, Few, some
from .processor import processor_s, resident_bytes

ROUNDS = 4  # of which the first, in which the processes warm up, does not count
ROUND_S = 0.4  # about as long as a round of one client should take
# Several times as many as there are clients in the second run, so that what comes with a unit can be told.
MOST_UNITS, LEAST_UNITS = 64, 24
MANY = 8  # clients of the second run, where a unit does not take long
SHORT_S, LONG_S = 0.06, 1.0
PASSES = 5
BEATS = 60

Json = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A short run, without its first round. rows: its profile. cpu: seconds of a core by role; None where the system
    does not tell. rounds: how many. units: of all clients together. clients: how many. samples: of a unit. beat_s:
    the coordinator's seconds for a sign of life of a client. resident: bytes of a split server's memory."""

    rows: list[Row]
    cpu: Mapping[str, float] | None
    rounds: int
    units: int
    clients: int
    samples: int
    evaluated: int
    beat_s: float
    resident: int


def probe(spec: RunSpec, forks: Forks | None = None) -> tuple[Seen, Seen]:
    """The two runs.

    Args:
        spec: resolved.

    Raises:
        RunFailed: when one of them does.
    """
    unit_s = _unit_s(spec)
    if unit_s < SHORT_S:
        units, many = min(MOST_UNITS, max(LEAST_UNITS, round(ROUND_S / (unit_s + 0.004)))), MANY
    else:
        units, many = (6, 2) if unit_s < LONG_S else (4, 2)
    return _run(spec, 1, units, forks), _run(spec, many, 1, forks)


def _run(spec: RunSpec, clients: int, units: int, forks: Forks | None) -> Seen:
    """So many clients, each with so many full units."""
    samples = units * _samples_per_unit(spec)
    with tempfile.TemporaryDirectory(prefix="microsfl-plan-") as place:
        few = Path(place) / "few.json"
        client = client_ids(1)[0] if ":" in spec.data.dataset and takes_client(spec.data.dataset) else None
        evaluated = min(spec.data.batch_size, 64)
        Few(spec.data.dataset, spec.data.path, client, samples * clients, evaluated * clients).write(few)
        with Federation(_small(spec, clients, few), Path(place) / "run", forks=forks) as federation:
            cpu = _follow(federation)
            beat_s = _beat(federation)
            replicas = [child for child in federation.children if child.role == "split-server"]
            resident = max((resident_bytes(child.process.pid) for child in replicas), default=0)
            rows = [row for row in tidy(federation.control.profile()) if row.round]
    return Seen(rows, cpu, ROUNDS - 1, units * clients, clients, _samples_per_unit(spec), evaluated, beat_s, resident)


def _small(spec: RunSpec, clients: int, few: Path) -> RunSpec:
    """The run with that little data, one split server and one client process."""
    values = spec.model_dump(mode="json")
    values["run"] |= {"name": "plan", "rounds": ROUNDS, "participants": "all", "deadline_s": 0, "quorum": 1.0,
                      "managed": True}  # fmt: skip
    values["data"] |= {"dataset": NAME, "path": str(few), "clients": clients, "partition": "iid", "public": 0.0}
    values["strategy"] |= {"local_epochs": 1}
    if spec.strategy.traits.body == "shared" and not spec.strategy.traits.turns:
        values["strategy"] |= {"sync": "round", "max_staleness": 0, "staleness_discount": 0.0}
    values["servers"] |= {"split": 1, "clients_per_process": clients}
    values["store"], values["records"] = {}, {}
    return RunSpec.parse(values)


def _samples_per_unit(spec: RunSpec) -> int:
    unit = spec.strategy.unit
    return (unit if isinstance(unit, int) else 1) * spec.data.batch_size


def _follow(federation: Federation) -> Mapping[str, float] | None:
    """Wait until the run is over; the seconds of a core of each role from the end of the first round on."""
    run = federation.control.watch(0, 0.0)
    while not run["history"]:  # closely, so that what is counted begins with the second round
        run = federation.control.watch(run["revision"], 1.0)
    before = _cpu(federation)
    for _ in federation.follow():
        pass
    after = _cpu(federation)
    if before is None or after is None:
        return None
    return {role: after[role] - before[role] for role in after}


def _cpu(federation: Federation) -> dict[str, float] | None:
    found: dict[str, float] = {}
    for child in federation.children:
        seconds = processor_s(child.process.pid)
        if seconds is None:
            return None
        found[child.role] = found.get(child.role, 0.0) + seconds
    return found


def _beat(federation: Federation) -> float:
    """Seconds of the coordinator for one sign of life of a client; measured now that the run is over."""
    ways = Ways.of(
        Http(retry_s=10.0, connections=Connections(Outbound())), federation.coordinator, federation.credential
    )
    coordinator = Coordinator(ways.coordinator, federation.coordinator)
    [child] = [one for one in federation.children if one.role == "coordinator"]
    client, me = client_ids(1)[0], {"process": "plan"}
    coordinator.register(client, me)
    before, began_at = processor_s(child.process.pid), time.perf_counter()
    for _ in range(BEATS):
        coordinator.register(client, me)
    took, after = time.perf_counter() - began_at, processor_s(child.process.pid)
    return (took if before is None or after is None else after - before) / BEATS


def _unit_s(spec: RunSpec) -> float:
    """Seconds of one unit in this process, roughly: to know how many to measure."""
    data = load_data(
        spec.data.dataset,
        spec.data.path,
        client_ids(1)[0] if ":" in spec.data.dataset and takes_client(spec.data.dataset) else None,
    )
    indices = some(data.train, spec.data.batch_size)
    parts = build_parts(spec, [spec.model.name])
    x, y = take(data.train, indices)
    took: list[float] = []
    while len(took) < PASSES and sum(took) < LONG_S:
        began_at = time.perf_counter()
        _pass(parts, x, y)
        took.append(time.perf_counter() - began_at)
    unit = spec.strategy.unit
    return min(took) * (unit if isinstance(unit, int) else 1)


def _pass(parts: Parts, x: torch.Tensor, y: torch.Tensor) -> None:
    """Forward and backward of one batch."""
    with torch.enable_grad():
        loss = torch.nn.functional.cross_entropy(parts.joined().train()(x), y)
        if loss.requires_grad:
            torch.autograd.backward(loss)
