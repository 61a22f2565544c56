"""Clients that take turns at one body (sflv2, sl): every contribution is a commit of its own, made before it is
acknowledged, so that the same training comes out bit by bit whatever dies in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.core.unit import UnitKey
from microsfl.errors import RoundClosed
from microsfl.sync import keys
from microsfl.sync.commits import Chain
from microsfl.sync.seals import seal
from microsfl.wire.messages import Backward, Forward, Gradients, Outputs
from tests.laws.test_law_2_statelessness import commits
from tests.laws.test_law_3_durability import Killed, Mortal, restart_everything, run_through
from tests.laws.test_law_4_exactly_once import Unruly, audit
from tests.world import MODELS, World, spec_of, toy_data, train_plainly

CLIENTS = 3
# In two rounds: 16 contributions, 16 versions of 3 files, 6 updates, and what closes the rounds.
WRITES = 80
MOMENTUM = {"name": "SGD", "lr": 0.05, "momentum": 0.9}
ADAM = {"name": "Adam", "lr": 0.01}
NAMES = ("sflv2", "sl")


def spec(name: str, clients: int = CLIENTS, *, model: str = "dropout", u_shaped: bool = True, **strategy: Any) -> Any:
    optimizers = {"body_optimizer": MOMENTUM, "client_optimizer": MOMENTUM}
    return spec_of(
        data={"clients": clients},
        model={"name": MODELS + model, "u_shaped": u_shaped},
        strategy={"name": name, **optimizers, **strategy},
    )


def world_of(of: Any, **options: Any) -> World:
    world = World(of, **options)
    for number in range(of.data.clients):
        world.join(f"c{number}", toy_data(samples=17 + 4 * number, seed=number))
    return world


def finished(of: Any, **options: Any) -> World:
    world = world_of(of, **options)
    world.run()
    return world


@pytest.mark.parametrize("u_shaped", [True, False], ids=["u-shaped", "vanilla"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["plain", "dropout", "batchnorm"])
def test_law_1_with_one_client_turns_are_plain_training(name: str, model: str, u_shaped: bool) -> None:
    of = spec(name, 1, model=model, u_shaped=u_shaped, body_optimizer=ADAM)
    plain = train_plainly(of, "c0", toy_data(samples=17))
    ours = finished(of, replicas=2, spread="random").weights()
    assert ours.keys() == plain.keys()
    assert {key for key, tensor in plain.items() if not torch.equal(ours[key], tensor)} == set()


@pytest.mark.parametrize("u_shaped", [True, False], ids=["u-shaped", "vanilla"])
@pytest.mark.parametrize("name", NAMES)
def test_every_contribution_is_a_commit_of_its_own_in_the_order_of_the_turns(name: str, u_shaped: bool) -> None:
    of = spec(name, u_shaped=u_shaped)
    world = finished(of, replicas=3, spread="random")
    for round_ in range(of.run.rounds):
        *units, closing = [commit for commit in world.commits()[1:] if commit.round == round_]
        assert [len(commit.contributions) for commit in units] == [1] * (2 + 3 + 3)  # 17, 21 and 25 samples by 8
        assert (closing.closes, closing.contributions) == (True, ())
        assert closing.weights == units[-1].weights
        done = [(commit.version, commit.contributions[0]) for commit in units]
        assert tuple(dict.fromkeys(one.client for _, one in done)) == world.chosen(round_)
        assert all(one.version == version - 1 for version, one in done)
    audit(world, set())


@pytest.mark.parametrize("name", NAMES)
def test_law_2_replicas_spread_and_caches_change_no_bit_of_a_turn(name: str) -> None:
    of = spec(name, model="batchnorm")
    expected = commits(finished(of))
    assert commits(finished(of, replicas=3, spread="random")) == expected
    assert commits(finished(of, replicas=3, spread="random", caches=False)) == expected


@given(seed=st.integers(0, 2**32), name=st.sampled_from(NAMES), u_shaped=st.booleans())
@settings(max_examples=10, deadline=None)
def test_law_4_an_unruly_network_changes_no_bit_of_a_turn(seed: int, name: str, u_shaped: bool) -> None:
    of = spec(name, u_shaped=u_shaped)
    world = world_of(of, replicas=3, spread="random")
    world.split.faults = unruly = Unruly(world, seed)
    world.run()
    assert commits(world) == commits(finished(of))
    audit(world, unruly.acknowledged)


@given(at=st.integers(1, WRITES), after=st.booleans(), name=st.sampled_from(NAMES), u_shaped=st.booleans())
@settings(max_examples=15, deadline=None)
def test_law_3_a_death_at_any_write_changes_no_bit_of_a_turn(at: int, after: bool, name: str, u_shaped: bool) -> None:
    """All processes die, and come back knowing nothing: clients replay the round, whose units are done already."""
    of = spec(name, u_shaped=u_shaped)
    world = world_of(of, replicas=2)
    mortal = Mortal(at, after)
    for store in (world.body_store, world.client_store):
        mortal.watch(store)
    run_through(world, restart_everything)
    assert commits(world) == commits(finished(of))


@pytest.mark.parametrize("retries", [True, False], ids=["asked again", "answered"])
@pytest.mark.parametrize("u_shaped", [True, False], ids=["u-shaped", "vanilla"])
@pytest.mark.parametrize("name", NAMES)
def test_law_3_a_replica_dies_between_each_contribution_and_its_commit(
    name: str, u_shaped: bool, retries: bool
) -> None:
    """Each time another replica goes on: with the same request again, or, had its answer come through, the next."""
    of = spec(name, u_shaped=u_shaped)
    world = world_of(of)
    deaths: list[str] = []

    def dies_before_its_commit(path: str, _body: bytes | None, ask: Any, _order: Any) -> Any:
        if path not in ("/v1/backward", "/v1/step"):
            return ask(world.new_replica())
        replica = world.new_replica()
        sync = replica.messages[path][1].__self__._run("toy").sync  # type: ignore[attr-defined]
        sync.commit_if_due = killed if retries else skipped
        try:
            return ask(replica)
        except Killed:
            return ask(world.new_replica())

    def killed(unit: UnitKey, _batches: int) -> None:
        deaths.append(f"{unit.round}/{unit.client}/{unit.unit}")
        raise Killed

    def skipped(unit: UnitKey, _batches: int) -> None:
        deaths.append(f"{unit.round}/{unit.client}/{unit.unit}")

    world.split.faults = dies_before_its_commit
    world.run()
    assert len(deaths) == len(set(deaths)) == of.run.rounds * (2 + 3 + 3)
    assert commits(world) == commits(finished(of))


@pytest.mark.parametrize("name", NAMES)
def test_a_replica_that_is_asked_while_another_finishes_the_unit_computes_it_on_the_same_version(name: str) -> None:
    """One hung, the client asked another, and the first woke up just before that one looked for the newest version."""
    of = spec(name, u_shaped=False)
    world = world_of(of)

    def two_at_a_time(path: str, _body: bytes | None, ask: Any, _order: Any) -> Any:
        first, second = world.new_replica(), world.new_replica()
        if path == "/v1/step":
            sync = second.messages[path][1].__self__._run("toy").sync  # type: ignore[attr-defined]
            real = sync.pick

            def late(version: int | None, at_least: int) -> int:
                ask(first)
                picked: int = real(version, at_least)
                return picked

            sync.pick = late
        return ask(second)

    world.split.faults = two_at_a_time
    world.run()
    assert commits(world) == commits(finished(of))
    assert world.client_hash() == finished(of).client_hash()


def half_done(of: Any, waiting: set[UnitKey] | None = None) -> World:
    """A world whose clients trained in round 0, and the contributions of these units, or of all, wait for a commit."""
    world = world_of(of)
    sync = world.split.replicas[0].calls["/v1/reduce"].__self__._run("toy").sync  # type: ignore[attr-defined]
    commit = sync.commit_if_due
    sync.commit_if_due = lambda unit, batches: commit(unit, batches) if waiting and unit not in waiting else None
    sync._commit_one_by_one = lambda _round: None
    for client, trainer in world.trainers.items():
        trainer.train(world.task(client, 0))
    return world


@pytest.mark.parametrize("by", ["forward", "close"])
def test_what_waits_is_committed_one_by_one_in_sorted_order(by: str) -> None:
    """Several can wait where clients were taken for lost and were not: whatever comes next goes through them first."""
    world = half_done(spec("sflv2"))
    assert world.chain.head().version == 0
    replica = world.new_replica()
    if by == "forward":
        request = Forward(run="toy", round=0, client="c9", unit=0, activations={"0": torch.ones(8, 8)})
        answer = Outputs.unpack(replica.answer("/v1/forward", request.pack())[0])
        assert answer.version == world.chain.head().version == 8
    else:
        replica.calls["/v1/reduce"]({"run": "toy", "round": 0})
        assert world.commits().pop().closes
    found = [[(one.client, one.unit) for one in commit.contributions] for commit in world.commits()[1:9]]
    assert found == [[(f"c{client}", unit)] for client, units in enumerate((2, 3, 3)) for unit in range(units)]
    assert all(commit.left_out == () for commit in world.commits())


@pytest.mark.parametrize("u_shaped", [True, False], ids=["u-shaped", "vanilla"])
def test_a_unit_that_is_done_gets_the_same_answer_again_and_counts_once(u_shaped: bool) -> None:
    """The clients replay their round, on replicas that know nothing, when all of it is committed."""
    world = world_of(spec("sl", u_shaped=u_shaped))
    answers: list[Outputs | Gradients] = []

    def keep(path: str, _body: bytes | None, ask: Any, _order: Any) -> Any:
        answer = ask(world.new_replica())
        kind = Outputs if path == "/v1/forward" else Gradients
        answers.append(kind.unpack(answer.data))
        return answer

    world.split.faults = keep
    for client in world.trainers:
        world.trainers[client].train(world.task(client, 0))
    before, first = commits(world), answers.copy()
    answers.clear()
    for client, data in world.data.items():
        world.join(client, data).train(world.task(client, 0))
    assert commits(world) == before
    assert len(answers) == len(first) == (2 if u_shaped else 1) * (2 + 3 + 3)
    for again, then in zip(answers, first, strict=True):
        assert again.version == then.version
        tensors = [one.outputs if isinstance(one, Outputs) else one.gradients for one in (again, then)]
        assert all(torch.equal(tensors[0][name], tensor) for name, tensor in tensors[1].items())


def test_nothing_is_acknowledged_between_the_seal_and_the_closing_commit() -> None:
    world = world_of(spec("sflv2"))

    def seal_first(path: str, _body: bytes | None, ask: Any, order: Any) -> Any:
        if path == "/v1/backward":
            seal(world.body_store, "toy", 0)
        return ask(order[0])

    world.split.faults = seal_first
    with pytest.raises(RoundClosed):
        world.trainers["c0"].train(world.task("c0", 0))
    world.split.replicas[0].calls["/v1/reduce"]({"run": "toy", "round": 0})
    # What the seal overtook was in the store before the listing all the same, and so counts, like in any strategy.
    assert [len(commit.contributions) for commit in world.commits()] == [0, 1, 0]


def test_a_commit_that_another_replica_made_first_is_not_made_again() -> None:
    key = UnitKey("toy", 0, "c2", 2)
    world = half_done(spec("sflv2"), {key})
    slow = world.new_replica().calls["/v1/reduce"].__self__._run("toy").sync  # type: ignore[attr-defined]
    draft = slow._draft(slow.chain.head(), 0, [key])
    world.new_replica().calls["/v1/reduce"].__self__._run("toy").sync._commit_alone(key)  # type: ignore[attr-defined]
    head = Chain(world.body_store, "toy", keys.BODY).head()
    slow._create(draft, closes=False)
    slow._commit_alone(key)
    assert Chain(world.body_store, "toy", keys.BODY).head() == head
    audit(world, {(0, "c2", 2)})


def test_a_backward_on_an_old_version_is_told_the_version_it_had() -> None:
    """A named version is never replaced by a newer one: the client computed with that one."""
    of = spec("sflv2")
    world = world_of(of.model_copy(update={"run": of.run.model_copy(update={"rounds": 3})}))
    world.round(0)
    world.round(1)
    request = Backward(
        run="toy", round=2, client="c0", unit=0, version=0,
        gradients={"0": torch.ones(8, 8)}, activations={"0": torch.ones(8, 8)},
    )  # fmt: skip
    answer = Gradients.unpack(world.new_replica().answer("/v1/backward", request.pack())[0])
    assert answer.version == 0
    assert answer.newest == world.chain.head().version
