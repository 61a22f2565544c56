"""Law 2: with sync = "round", any number of replicas, any spread of requests, caches on or off: the same bits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.sync import contributions, keys, partials
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


@pytest.mark.parametrize("groups_each", [1, 9])
@pytest.mark.parametrize("helping", [(), (1,), (3, 2), (1, 2, 3)], ids=str)
def test_law_2_whoever_adds_up_what_changes_no_bit(
    helping: tuple[int, ...], groups_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round is closed in four parts, of which other replicas add up as much as they get to."""
    turns = partials._turns
    monkeypatch.setattr(contributions, "GROUP", 2)
    monkeypatch.setattr(partials, "_turns", lambda *of: turns(*of)[:groups_each])
    spec = spec_of(data={"clients": CLIENTS}, model={"name": f"{MODELS}batchnorm"})
    expected = finished(spec)
    world = World(spec, replicas=4, spread="random")
    for number in range(CLIENTS):
        world.join(f"c{number}", toy_data(samples=17 + number, seed=number))
    for round_ in range(spec.run.rounds):
        for client, trainer in sorted(world.trainers.items()):
            trainer.train(world.task(client, round_))
        shared = {"run": spec.run.name, "round": round_, "parts": 4}
        sums = [world.split.replicas[part].calls["/v1/partials"]({**shared, "part": part})["sums"] for part in helping]
        assert sum(sums) == min(groups_each * len(helping), 4)  # 8 contributions
        world.split.replicas[0].calls["/v1/reduce"](shared)
        assert list(world.body_store.list(keys.partials(spec.run.name, round_))) == []
        world.close(round_)
    assert commits(world) == expected


def test_law_2_partial_sums_are_used() -> None:
    """The test of the test: what others have added up is not added up again."""
    spec = spec_of(data={"clients": CLIENTS})
    world = World(spec, replicas=2)
    for number in range(CLIENTS):
        world.join(f"c{number}", toy_data(samples=17 + number, seed=number))
        world.trainers[f"c{number}"].train(world.task(f"c{number}", 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contributions, "GROUP", 2)
        shared = {"run": spec.run.name, "round": 0, "parts": 2}
        assert world.split.replicas[1].calls["/v1/partials"]({**shared, "part": 1}) == {"sums": 4}
        patch.setattr(contributions.Adder, "group", lambda *_: pytest.fail("added up again"))
        world.split.replicas[0].calls["/v1/reduce"](shared)
    [commit] = world.commits()[1:]
    assert len(commit.contributions) == 8
