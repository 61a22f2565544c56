"""Law 2: with sync = "round", any number of replicas, any spread of requests, caches on or off: the same bits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world import MODELS, World, spec_of, toy_data

CLIENTS = 3


def finished(spec: Any, **world: Any) -> list[bytes]:
    """Every commit of both areas, with the hashes that it names, as it stands in the store."""
    one = World(spec, **world)
    for number in range(CLIENTS):
        one.join(f"c{number}", toy_data(samples=17 + number, seed=number))
    one.run()
    return commits(one)


def commits(world: World) -> list[bytes]:
    chains = (world.chain, world.client_chain)
    return [commit.to_bytes() for chain in chains for commit in chain.back(chain.head())]


@pytest.mark.parametrize("u_shaped", [True, False], ids=["u-shaped", "vanilla"])
@pytest.mark.parametrize("model", ["plain", "dropout", "batchnorm", "masked"])
def test_law_2_replicas_spread_and_caches_change_no_bit(model: str, u_shaped: bool) -> None:
    spec = spec_of(data={"clients": CLIENTS}, model={"name": MODELS + model, "u_shaped": u_shaped})
    expected = finished(spec, replicas=1)
    assert finished(spec, replicas=3, spread="random") == expected
    assert finished(spec, replicas=8, spread="random", caches=False) == expected
    assert finished(spec, replicas=1, caches=False) == expected


@given(
    replicas=st.integers(1, 8),
    caches=st.booleans(),
    unit=st.integers(1, 4),
    front=st.sampled_from(["round", "never"]),
    seed=st.integers(0, 5),
)
@settings(max_examples=15, deadline=None)
def test_law_2_for_units_of_any_size(replicas: int, caches: bool, unit: int, front: str, seed: int) -> None:
    spec = spec_of(
        run={"seed": seed},
        data={"clients": CLIENTS},
        model={"name": f"{MODELS}dropout"},
        strategy={"unit": unit, "front_update": front},
    )
    expected = finished(spec, replicas=1)
    assert finished(spec, replicas=replicas, spread="random", caches=caches) == expected


def test_law_2_a_replica_that_just_started_answers_like_the_others() -> None:
    """Every request goes to a replica made for it alone: there is no state that could help."""
    spec = spec_of(data={"clients": CLIENTS}, model={"name": f"{MODELS}batchnorm"})
    expected = finished(spec, replicas=1)
    world = World(spec)

    def fresh(_path: str, _body: Any, ask: Any, _order: Any) -> Any:
        replica = world.new_replica()
        answer = ask(replica)
        replica.close()  # as at a graceful stop: what was handed to the store is written
        return answer

    world.split.faults = fresh
    for number in range(CLIENTS):
        world.join(f"c{number}", toy_data(samples=17 + number, seed=number))
    world.run()
    assert commits(world) == expected


def test_law_2_the_run_s_name_decides_nothing() -> None:
    spec = spec_of(data={"clients": CLIENTS}, model={"name": f"{MODELS}dropout"})
    renamed = World(spec.model_copy(update={"run": spec.run.model_copy(update={"name": "other"})}))
    original = World(spec)
    for world in (original, renamed):
        for number in range(CLIENTS):
            world.join(f"c{number}", toy_data(samples=17 + number, seed=number))
        world.run()
    assert (original.body_hash(), original.client_hash()) == (renamed.body_hash(), renamed.client_hash())


def test_law_2_the_hash_depends_on_the_seed() -> None:
    """The test of the test: what should differ does."""
    spec = spec_of(data={"clients": CLIENTS})
    assert finished(spec) != finished(spec.model_copy(update={"run": spec.run.model_copy(update={"seed": 1})}))
