"""Units under way at the same time: the bits of one unit after the other, and only where units are independent.

These belong to law 2: how much of a client's work is under way is not to show in the result.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.client.local_model import computing
from microsfl.errors import RoundClosed
from tests.laws.test_law_2_statelessness import commits
from tests.world import MODELS, World, spec_of, toy_data

BATCHES = 9  # the last with a sample too few


class Gate:
    """Holds requests until enough are under way, and after the last forward none; lets one at a time through.

    Here clients and replicas share a process, and so torch's generator: one of them may compute at a time.
    """

    def __init__(self, wanted: int, paths: tuple[str, ...] = ("/v1/forward", "/v1/step")) -> None:
        self.wanted, self.paths = wanted, paths
        self.changed = threading.Condition()
        self.under_way = self.most = self.came = 0

    def __call__(self, path: str, _body: bytes | None, ask: Any, order: Any) -> Any:
        with self.changed:
            self.came += path in self.paths
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.changed.notify_all()
            there = self.changed.wait_for(lambda: self.most >= self.wanted or self.came == BATCHES, timeout=20)
        assert there, f"only {self.most} requests came at the same time"
        with computing:
            answer = ask(order[0])
        with self.changed:
            self.under_way -= 1
        return answer


def trained(spec: Any, in_flight: int, wanted: int = 0, **world: Any) -> tuple[list[bytes], int]:
    """(every commit, the most requests at a time) of two rounds of one client."""
    one = World(spec, **world)
    one.join("one", toy_data(samples=71)).in_flight = in_flight
    most = 0
    for number in range(spec.run.rounds):
        gate = Gate(wanted)
        one.split.faults = gate
        one.round(number)
        most = max(most, gate.most)
    return commits(one), most


@pytest.mark.parametrize("u_shaped", [True, False], ids=["u-shaped", "vanilla"])
@pytest.mark.parametrize("front", ["never", "round"])
@pytest.mark.parametrize("model", ["plain", "dropout", "batchnorm", "masked"])
def test_law_2_units_under_way_change_no_bit(model: str, front: str, u_shaped: bool) -> None:
    """With three requests held until all three are there: they do overlap."""
    spec = spec_of(model={"name": MODELS + model, "u_shaped": u_shaped}, strategy={"unit": 1, "front_update": front})
    expected, most = trained(spec, in_flight=0)
    assert most == 1
    overlapped, most = trained(spec, in_flight=4, wanted=3, replicas=3, spread="random")
    assert most >= 3
    assert overlapped == expected


@given(in_flight=st.integers(0, 9), unit=st.integers(1, 4), caches=st.booleans(), seed=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_law_2_for_any_number_of_units_under_way(in_flight: int, unit: int, caches: bool, seed: int) -> None:
    spec = spec_of(
        run={"seed": seed}, model={"name": f"{MODELS}dropout"}, strategy={"unit": unit, "front_update": "round"}
    )
    assert trained(spec, in_flight, replicas=2, spread="random", caches=caches)[0] == trained(spec, 0)[0]


@pytest.mark.parametrize(
    "strategy",
    [
        {"front_update": "batch"},
        {"front_update": "never", "sync": 2},
        {"front_update": "never", "name": "sflv1"},
        {"front_update": "never", "name": "sflv2"},
        {"front_update": "never", "name": "sl"},
    ],
    ids=str,
)
def test_units_that_depend_on_those_before_wait_for_them(strategy: dict[str, Any]) -> None:
    spec = spec_of(strategy={"unit": 1, **strategy})
    assert trained(spec, in_flight=4) == trained(spec, in_flight=0)
    assert trained(spec, in_flight=4)[1] == 1


def test_what_goes_wrong_under_way_comes_out_and_nothing_is_uploaded() -> None:
    world = World(spec_of(strategy={"unit": 1, "front_update": "never"}))
    trainer = world.join("one", toy_data(samples=71))
    trainer.in_flight = 4
    gate = Gate(0)

    def closed(path: str, body: bytes | None, ask: Any, order: Any) -> Any:
        if path == "/v1/backward" and gate.came > 5:
            raise RoundClosed("round 0 is closed")
        return gate(path, body, ask, order)

    world.split.faults = closed
    with pytest.raises(RoundClosed):
        trainer.train(world.task("one", 0))
    assert all(path != "/v1/updates" for _, path in world.fed.requests)
