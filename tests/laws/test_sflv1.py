"""SplitFed v1: a copy of the body for each client, stepped once a unit and averaged at the round's end. No copy is a
file, and yet any replica has it: laws 1, 2, 3, 4 and 7 for copies that are folds over contributions."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from microsfl.config import SplitServerSettings
from microsfl.core.partition import batches
from microsfl.core.unit import UnitKey, batch_seed, seed_of
from microsfl.errors import RoundClosed, UnitMissing, VersionNotFound
from microsfl.services.split_server import SplitServer
from microsfl.store.objects import open_store
from microsfl.sync import keys
from microsfl.wire.messages import Backward, Forward, Outputs, Step
from microsfl.wire.tensors import decode
from microsfl.zoo.datasets import take
from microsfl.zoo.parts import build_parts
from tests.laws.test_law_2_statelessness import commits
from tests.laws.test_law_3_durability import Mortal, restart_everything, run_through
from tests.laws.test_law_4_exactly_once import Unruly, audit
from tests.world import ALLOWED, MODELS, World, spec_of, toy_data

CLIENTS = 3
# In two rounds: 16 contributions, 6 updates, and what closes the rounds.
WRITES = 34
MOMENTUM = {"name": "SGD", "lr": 0.05, "momentum": 0.9}
PLAIN = {"name": "SGD", "lr": 0.05}
DATA = {f"c{number}": toy_data(samples=17 + 4 * number, seed=number) for number in range(CLIENTS)}
PARTS = ("front", "body", "tail")


def spec(model: str = "dropout", u_shaped: bool = True, **strategy: Any) -> Any:
    optimizers = {"body_optimizer": MOMENTUM, "client_optimizer": MOMENTUM}
    return spec_of(
        data={"clients": CLIENTS},
        model={"name": MODELS + model, "u_shaped": u_shaped},
        strategy={"name": "sflv1", **optimizers, **strategy},
    )


def world_of(of: Any, **options: Any) -> World:
    world = World(of, **options)
    for client, data in DATA.items():
        world.join(client, data)
    return world


def finished(of: Any, **options: Any) -> World:
    world = world_of(of, **options)
    world.run()
    return world


def averaging_by_hand(of: Any) -> dict[str, torch.Tensor]:
    """SplitFed v1 in plain PyTorch: whole models in memory, trained one after the other, then averaged."""
    parts = build_parts(of, ALLOWED)
    shared: dict[str, nn.Module] = {name: getattr(parts, name) for name in PARTS}
    of_clients: dict[str, Any] = {}
    for round_ in range(of.run.rounds):
        trained = [train_copy(of, client, round_, shared, of_clients) for client in DATA]
        for name, part in shared.items():
            part.load_state_dict(weighted_mean([(models[name].state_dict(), samples) for models, samples in trained]))
    return {f"{name}.{key}": tensor for name, part in shared.items() for key, tensor in part.state_dict().items()}


def train_copy(
    of: Any, client: str, round_: int, shared: dict[str, nn.Module], of_clients: dict[str, Any]
) -> tuple[dict[str, nn.Module], int]:
    """(parts, samples) of a client after the round. Its own optimizer goes on, that of its copy begins anew."""
    models = {name: copy.deepcopy(part) for name, part in shared.items()}
    own = [*models["front"].parameters(), *models["tail"].parameters()]
    optimizers = [
        make(of.strategy.client_optimizer, own),
        make(of.strategy.body_optimizer, models["body"].parameters()),
    ]
    if client in of_clients:
        optimizers[0].load_state_dict(of_clients[client])
    data, seed = DATA[client], of.run.seed
    order = batches(
        len(data.share.train), batch_size=of.data.batch_size, epochs=1, seed=seed_of("order", seed, client, round_)
    )
    for number, indices in enumerate(order):
        x, y = take(data.train, data.share.train[indices])
        value = x
        for name, model in models.items():
            model.train()
            torch.manual_seed(batch_seed(name, seed, UnitKey(of.run.name, round_, client, number), 0))
            value = model(value)
        nn.functional.cross_entropy(value, y).backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    of_clients[client] = optimizers[0].state_dict()
    return models, sum(len(indices) for indices in order)


def make(rule: Any, parameters: Any) -> torch.optim.Optimizer:
    return getattr(torch.optim, rule.name)(list(parameters), **rule.options)  # type: ignore[no-any-return]


def weighted_mean(sets: list[tuple[dict[str, torch.Tensor], int]]) -> dict[str, torch.Tensor]:
    total = float(sum(samples for _, samples in sets))
    mean = {name: sum(one[name].double() * samples for one, samples in sets) / total for name in sets[0][0]}  # type: ignore[union-attr]
    return {
        name: (tensor if sets[0][0][name].is_floating_point() else tensor.round()).to(sets[0][0][name].dtype)
        for name, tensor in mean.items()
    }


@pytest.mark.parametrize("u_shaped", [True, False], ids=["u-shaped", "vanilla"])
@pytest.mark.parametrize("model", ["plain", "dropout", "batchnorm"])
def test_law_1_sflv1_is_training_copies_and_averaging_them(model: str, u_shaped: bool) -> None:
    of = spec(model, u_shaped)
    ours, by_hand = finished(of).weights(), averaging_by_hand(of)
    assert ours.keys() == by_hand.keys()
    assert {name for name, tensor in ours.items() if not torch.equal(tensor, by_hand[name])} == set()


def test_law_1_a_copy_is_stepped_once_a_unit_on_the_mean_of_its_batches() -> None:
    """So two batches of 8 in a unit are one batch of 16, where front and tail do not step in between."""
    rhythm = {"front_update": "never", "tail_update": "round", "body_optimizer": {"name": "Adam", "lr": 0.01}}
    results = []
    for unit, size in ((2, 8), (1, 16)):
        of = spec("plain", unit=unit, **rhythm)
        world = World(of.model_copy(update={"data": of.data.model_copy(update={"batch_size": size})}))
        for number in range(2):
            world.join(f"c{number}", toy_data(samples=32, seed=number))
        world.run()
        results.append(world)
    assert [(one.unit, one.batches) for one in results[0].commits()[1].contributions] == [(0, 2), (2, 2)] * 2
    two, one = (world.weights() for world in results)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-6)


def test_law_1_sflv1_u_shaped_is_vanilla_when_both_sides_step_alike() -> None:
    of = [spec("batchnorm", shape, body_optimizer=PLAIN, client_optimizer=PLAIN) for shape in (True, False)]
    u_shaped, vanilla = ({name.split(".", 1)[1]: t for name, t in finished(one).weights().items()} for one in of)
    assert u_shaped.keys() == vanilla.keys()
    assert all(torch.equal(tensor, vanilla[name]) for name, tensor in u_shaped.items())


def test_a_commit_of_sflv1_lists_the_round_and_has_no_optimizer() -> None:
    world = finished(spec())
    assert [(one.version, one.closes, one.optimizer) for one in world.commits()[1:]] == [
        (1, True, None),
        (2, True, None),
    ]
    for commit in world.commits()[1:]:
        assert {one.client for one in commit.contributions} == set(DATA)
        assert {one.version for one in commit.contributions} == {commit.version - 1}
    audit(world, set())


@pytest.mark.parametrize("u_shaped", [True, False], ids=["u-shaped", "vanilla"])
@pytest.mark.parametrize("model", ["dropout", "batchnorm"])
def test_law_2_replicas_spread_and_caches_change_no_bit_of_a_copy(model: str, u_shaped: bool) -> None:
    of = spec(model, u_shaped)
    expected = commits(finished(of))
    assert commits(finished(of, replicas=3, spread="random")) == expected
    assert commits(finished(of, replicas=3, spread="random", caches=False)) == expected


@given(at=st.integers(1, WRITES), after=st.booleans(), u_shaped=st.booleans())
@settings(max_examples=15, deadline=None)
def test_law_3_a_death_at_any_write_changes_no_bit_of_a_copy(at: int, after: bool, u_shaped: bool) -> None:
    world = world_of(spec(u_shaped=u_shaped), replicas=2)
    mortal = Mortal(at, after)
    for store in (world.body_store, world.client_store):
        mortal.watch(store)
    run_through(world, restart_everything)
    assert commits(world) == commits(finished(spec(u_shaped=u_shaped)))


def test_law_3_a_replica_that_knows_nothing_answers_every_request() -> None:
    world = world_of(spec("batchnorm"))

    def fresh(_path: str, _body: Any, ask: Any, _order: Any) -> Any:
        replica = world.new_replica()
        answer = ask(replica)
        replica.close()
        return answer

    world.split.faults = fresh
    world.run()
    assert commits(world) == commits(finished(spec("batchnorm")))


@given(seed=st.integers(0, 2**32), u_shaped=st.booleans())
@settings(max_examples=10, deadline=None)
def test_law_4_an_unruly_network_changes_no_bit_of_a_copy(seed: int, u_shaped: bool) -> None:
    world = world_of(spec(u_shaped=u_shaped), replicas=3, spread="random")
    world.split.faults = unruly = Unruly(world, seed)
    world.run()
    assert commits(world) == commits(finished(spec(u_shaped=u_shaped)))
    audit(world, unruly.acknowledged)


@pytest.fixture
def server() -> SplitServer:
    """With room for some copies of the body, of 1 KB and as much again for its momentum, and graphs of two units."""
    store_url = "memory://"
    settings = SplitServerSettings(
        store_url=store_url, allow_models=ALLOWED, weights_cache_mb=0.02, graph_cache_mb=0.04, write_behind_mb=0
    )
    server = SplitServer(settings, open_store(store_url))
    server.prepare({"spec": spec("sixteen", front_update="round", unit=2).model_dump(mode="json")})
    return server


def forward(unit: int, client: str = "one", **changes: Any) -> Forward:
    activations = {"0": drawn(unit, 8)}
    return Forward(run="toy", round=0, client=client, unit=unit, activations=activations, **changes)


def drawn(seed: int, samples: int) -> torch.Tensor:
    return torch.randn(samples, 16, generator=torch.Generator().manual_seed(seed))


def train(server: SplitServer, unit: int, client: str = "one") -> Outputs:
    request = forward(unit, client)
    answer = server.forward(request)
    about = {"run": "toy", "round": 0, "client": client, "unit": unit, "version": answer.version}
    server.backward(Backward(**about, gradients={"0": torch.ones(8, 16)}, activations=request.activations))
    return answer


def test_a_repeated_forward_meets_the_copy_as_it_was(server: SplitServer) -> None:
    first = [train(server, unit) for unit in range(4)]
    assert not torch.equal(server.forward(forward(3, needs_grad=("0",))).outputs["0"], first[2].outputs["0"])
    for unit in (1, 3, 2, 0):
        again = server.forward(forward(unit))
        assert (again.version, again.outputs.keys()) == (0, first[unit].outputs.keys())
        assert torch.equal(again.outputs["0"], first[unit].outputs["0"])


def test_a_client_that_skips_a_unit_is_told_which(server: SplitServer) -> None:
    train(server, 0)
    train(server, 1)
    with pytest.raises(UnitMissing, match="Unit 4 of client 'one' in round 0 was sent, and unit 2 before it"):
        server.forward(forward(4))
    labels = {"0": torch.zeros(8, dtype=torch.int64)}
    with pytest.raises(UnitMissing, match="unit 0 before it"):
        server.step(Step(**{**forward(1, "other").model_dump(exclude={"sticky"}), "labels": labels}))
    for of_the_future in ({"version": 7}, {"at_least": 7}):
        with pytest.raises(VersionNotFound, match="no body version 7"):
            server.forward(forward(2, **of_the_future))


def test_a_round_computes_on_the_version_that_it_began_with(server: SplitServer) -> None:
    train(server, 0)
    server.reduce({"run": "toy", "round": 0})
    with pytest.raises(RoundClosed):
        server.forward(forward(1, at_least=1))
    next_round = forward(0).model_copy(update={"round": 1})
    assert server.forward(next_round).version == 1
    with pytest.raises(VersionNotFound, match="Round 1 of run 'toy' computes on version 1, not 0"):
        server.forward(next_round.model_copy(update={"version": 0}))


def test_a_unit_that_begins_within_another_is_refused(server: SplitServer) -> None:
    activations = {"0": drawn(0, 16)}
    about = {"run": "toy", "round": 0, "client": "one", "unit": 0, "batches": 2, "version": 0}
    server.backward(Backward(**about, gradients={"0": torch.ones(16, 16)}, activations=activations))
    with pytest.raises(UnitMissing, match="the next is 2"):
        server.forward(forward(1))
    server.forward(forward(2))


def test_law_7_copies_are_bounded_in_bytes_and_take_their_graphs_along(server: SplitServer) -> None:
    """Many clients with a copy each; what was dropped is computed again."""
    clients = [f"c{number}" for number in range(20)]
    for client in clients:
        train(server, 0, client)
    for client in clients:
        server.forward(forward(1, client))
        assert server.versions.currsize <= 20_000
        assert server.graphs.currsize <= 40_000
        assert {held.state for held in server.graphs.values()} <= set(server.versions)
    copies = [key for key in server.versions if len(key) == 3]
    assert 0 < len(copies) < len(clients)
    first = train(server, 1, clients[0])
    server.versions.drop_run("toy")
    assert not server.graphs
    assert torch.equal(server.forward(forward(1, clients[0])).outputs["0"], first.outputs["0"])


def test_a_copy_that_moves_on_takes_the_graphs_before_along(server: SplitServer) -> None:
    """The backward of unit 1 went to another replica, so its graph here waits for nobody."""
    train(server, 0)
    server.forward(forward(1))
    (held,) = server.graphs.values()
    assert held.state == ("toy", 0, "one")
    train(SplitServer(server.settings, server.store), 1)
    server.forward(forward(2))
    assert [key.unit for key in server.graphs] == [2]
    assert [key for key in server.versions if len(key) == 3] == [("toy", 0, "one")]


def test_a_client_that_was_lost_counts_with_what_it_sent() -> None:
    """Its copy is averaged with the weight of the samples that it got to."""
    of = spec("plain")
    world, forwards = world_of(of), []

    def die(path: str, _body: Any, ask: Any, order: Any) -> Any:
        if path == "/v1/forward":
            forwards.append(path)
        if len(forwards) > 2:
            raise ConnectionError
        return ask(order[0])

    world.split.faults = die
    with pytest.raises(ConnectionError):
        world.trainers["c1"].train(world.task("c1", 0))
    world.split.faults = None
    world.trainers["c0"].train(world.task("c0", 0))
    world.split.replicas[0].calls["/v1/reduce"]({"run": "toy", "round": 0})
    (commit,) = world.commits()[1:]
    assert [(one.client, one.unit) for one in commit.contributions] == [("c0", 0), ("c0", 1), ("c1", 0), ("c1", 1)]
    expected = {}
    for client in ("c0", "c1"):
        alone = world_of(of)
        alone.trainers[client].train(alone.task(client, 0))
        if client == "c1":
            alone.body_store.delete(keys.contribution(UnitKey("toy", 0, client, 2)))
        alone.split.replicas[0].calls["/v1/reduce"]({"run": "toy", "round": 0})
        expected[client] = decode(alone.chain.read(alone.chain.head().weights)).tensors
    samples = {client: sum(one.samples for one in commit.contributions if one.client == client) for client in expected}
    mean = weighted_mean([(expected[client], samples[client]) for client in expected])
    found = decode(world.chain.read(commit.weights)).tensors
    assert all(torch.equal(found[name], tensor) for name, tensor in mean.items())


def test_contributions_that_do_not_follow_on_each_other_are_left_out_with_the_reason() -> None:
    """None can come about through a split server: a file that somebody removed must not turn the sequence around."""
    world = world_of(spec("plain"))
    for client, trainer in world.trainers.items():
        trainer.train(world.task(client, 0))
    world.body_store.delete(keys.contribution(UnitKey("toy", 0, "c2", 1)))
    world.close(0)
    commit = world.commits()[1]
    assert [(one.client, one.unit) for one in commit.left_out] == [("c2", 2)]
    assert "had unit 1 next" in commit.left_out[0].reason
    assert [one.unit for one in commit.contributions if one.client == "c2"] == [0]
