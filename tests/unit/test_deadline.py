"""A deadline that is shorter than a round can be is refused before anything starts."""

from __future__ import annotations

import re
from typing import Any

import pytest

from microsfl.errors import InvalidSetting
from microsfl.launch.deadline import needed_batches
from microsfl.launch.preflight import resolve
from microsfl.launch.rehearsal import rehearse
from microsfl.spec import RunSpec


def spec_of(strategy: str = "filesync", clients: int = 4, **run: Any) -> RunSpec:
    return RunSpec.parse({"run": run, "data": {"clients": clients}, "strategy": {"name": strategy}})


@pytest.mark.parametrize("strategy", ["filesync", "sl", "cse-fsl", "fedavg"])
def test_it_names_the_deadline_and_what_a_round_takes(strategy: str) -> None:
    with pytest.raises(InvalidSetting, match=r"run\.deadline_s = 1e-06 is shorter than") as refused:
        rehearse(resolve(spec_of(strategy, deadline_s=1e-6)))
    found = re.search(
        r"the (\d+) batches of (one client|clients that train .*) take (\S+) s at least", str(refused.value)
    )
    assert found is not None
    assert int(found[1]) > 0
    assert float(found[3]) > 1e-6
    rehearse(resolve(spec_of(strategy, deadline_s=1e6)))


@pytest.mark.parametrize(
    ("spec", "batches"),
    [
        (spec_of(), 9),
        (spec_of(deadline_s=1, quorum=0.5), 4),  # the other two may be left out
        (spec_of("sl"), 1 + 4 + 7 + 9),
        (spec_of("sl", deadline_s=1, quorum=0.5), 1 + 4),
        (spec_of("cse-fsl"), 2),  # every fifth batch goes through the whole model, the first one too
        (spec_of("fedavg", participants=1, rounds=50), 9),  # its turn comes some day
    ],
)
def test_what_the_quorum_has_to_compute(spec: RunSpec, batches: int) -> None:
    assert needed_batches(spec, [4, 9, 1, 7]) == batches
