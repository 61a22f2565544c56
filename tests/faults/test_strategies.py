"""Law 3 for the strategies whose result does not depend on who comes first: processes die, the model is the same.

A simulation stands for the undisturbed run (tests/integration/test_simulation.py shows that they are equal).
"""

from __future__ import annotations

import pytest

from microsfl.launch.model_files import model_files, newest
from microsfl.simulate import simulate
from microsfl.spec import RunSpec
from microsfl.zoo.parts import build_parts
from tests.faults.chaos import Cluster, schedule

SEEDS = {"sl": 1005, "sflv1": 1007, "sflv2": 1012, "cse-fsl": 1017, "fedavg": 1022, "local": 1030}
AT_ONCE = (0.0, ("clients-0",))  # some of these runs are over before the first kill of a schedule
QUICK = ("sl",)


def spec_of(name: str) -> RunSpec:
    tables = {
        "run": {"name": f"killed-{name}", "rounds": 6},
        "data": {"clients": 5, "batch_size": 32},
        "strategy": {"name": name, "client_optimizer": {"momentum": 0.9, "lr": 0.05}},
    }
    return RunSpec.parse(tables).resolved(input_shape=(1, 8, 8), classes=10)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SEEDS]
)
def test_law_3_kills_change_nothing(name: str, living: Cluster) -> None:
    spec = spec_of(name)
    control, kills = living.disturbed(spec, [AT_ONCE, *schedule(SEEDS[name])])
    print(f"{name}: {dict(kills)}")  # noqa: T201  (shown when the test fails)
    assert kills

    calm = simulate(spec)
    assert model_files(*newest(control, spec.strategy.traits), build_parts(spec, ())) == calm.model
    accuracies = {(row["round"], row["client"]): row["test_accuracy"] for row in control.metrics()}
    assert accuracies == {(row["round"], row["client"]): row["test_accuracy"] for row in calm.metrics}
