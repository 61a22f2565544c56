"""A simulated run and the same run with real processes over HTTP come to the same weights and the same figures."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from microsfl.launch.control import Control
from microsfl.launch.model_files import model_files, newest
from microsfl.simulate import simulate
from microsfl.spec import RunSpec
from microsfl.zoo.parts import build_parts
from tests.faults.chaos import Cluster

# What depends on the clock alone.
TIMES = {"seconds", "eval_seconds", "started_at", "eval_started_at", "synced_at", "ended_at", "samples_per_s"}
# The processes are asked at random, and one that gets a backward before the activations has to ask for them again.
AT_LEAST = "bytes_up"

Tables = dict[str, dict[str, Any]]
CASES: dict[str, Tables] = {
    "filesync": {"strategy": {"client_optimizer": {"momentum": 0.9}}},
    "filesync-vanilla": {
        "model": {"u_shaped": False},
        "strategy": {"front_update": "round", "schedule": "cosine", "warmup_rounds": 1},
        "privacy": {"noise_std": 0.1, "noise_seed": "run"},
    },
    "filesync-int8": {
        "strategy": {"front_update": "round", "unit": 3},
        "wire": {"activations": "int8", "gradients": "int8"},
    },
    "sflv1": {},
    "sflv2": {"run": {"participants": 2}, "strategy": {"server_optimizer": {"name": "FedAdam", "lr": 0.02}}},
    "sl": {"run": {"participants": 2}},
    "cse-fsl": {"data": {"public": 0.2}},
    "fedavg": {"strategy": {"proximal_mu": 0.1, "average": "median"}},
    "local": {},
    "centralized": {},
}
QUICK = ("filesync-vanilla", "filesync-int8", "sl", "cse-fsl", "local")


def spec_of(case: str) -> RunSpec:
    tables: Tables = {
        "run": {"name": f"equal-{case}", "rounds": 2},
        "data": {"clients": 3},
        "strategy": {"name": case.removesuffix("-vanilla").removesuffix("-int8")},
    }
    for name, table in CASES[case].items():
        tables[name] = {**tables.get(name, {}), **table}
    return RunSpec.parse(tables).resolved(input_shape=(1, 8, 8), classes=10)


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in {*TIMES, AT_LEAST}} for row in rows]


def sha256(model: dict[str, bytes]) -> dict[str, str]:
    return {part: hashlib.sha256(content).hexdigest() for part, content in model.items()}


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_simulation_equals_services(case: str, living: Cluster) -> None:
    spec = spec_of(case)
    control = Control(living.federation.coordinator, spec.run.name)
    control.create(spec)
    control.start()
    living.finish(control)
    served = model_files(*newest(control, spec.strategy.traits), build_parts(spec, ()))

    done = simulate(spec)
    assert sha256(done.model) == sha256(served)
    assert set(served) == ({"front", "body", "tail"} if spec.strategy.traits.split else {"tail"}) - (
        set() if spec.strategy.traits.federated else {"tail"}
    )
    assert timeless(done.rounds) == timeless(control.rounds())
    rows = control.metrics()
    assert timeless(done.metrics) == timeless(rows)
    assert all((one[AT_LEAST] or 0) <= (other[AT_LEAST] or 0) for one, other in zip(done.metrics, rows, strict=True))
