"""How a client trains a round in each strategy, against naive twins, and what of it leaves the client."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch

from microsfl.client.background import Background
from microsfl.client.trainer import Trainer
from microsfl.core.partition import batches
from microsfl.core.schedule import Schedule
from microsfl.core.turns import chosen
from microsfl.core.unit import seed_of
from microsfl.errors import RoundClosed
from microsfl.spec import RunSpec
from microsfl.wire.messages import Contribution, Update
from microsfl.zoo.datasets import take
from microsfl.zoo.parts import build_parts, client_side
from tests.world import ALLOWED, MODELS, World, spec_of, toy_data, train_plainly

MOMENTUM = {"name": "SGD", "lr": 0.05, "momentum": 0.9}
Tensors = dict[str, torch.Tensor]


def assert_same(ours: Tensors, theirs: Tensors) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def ordered(spec: RunSpec, client: str, round_: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of a client's round."""
    data = toy_data()
    seed = seed_of("order", spec.run.seed, client, round_)
    for indices in batches(len(data.share.train), batch_size=spec.data.batch_size, epochs=1, seed=seed):
        yield take(data.train, data.share.train[indices])


@pytest.mark.parametrize("strategy", ["fedavg", "centralized"])
@pytest.mark.parametrize("model", ["plain", "dropout", "batchnorm", "masked"])
def test_one_client_with_the_whole_model_is_plain_training(model: str, strategy: str) -> None:
    spec = spec_of(model={"name": MODELS + model}, strategy={"name": strategy, "client_optimizer": MOMENTUM})
    world = World(spec)
    world.join("one", toy_data())
    world.run()
    assert_same(world.weights(), train_plainly(spec, "one", toy_data()))
    assert world.trainers["one"].split.traffic.up == 0


def test_local_training_is_plain_training_and_never_communicates() -> None:
    """Not a byte, and no request: not in training, nor in evaluation, nor after a restart, which trains again."""
    spec = spec_of(run={"rounds": 3}, strategy={"name": "local", "client_optimizer": MOMENTUM})
    world = World(spec)
    trainer = world.join("one", toy_data())
    for round_ in range(3):
        trained = trainer.train(world.task("one", round_))
        tested = trainer.evaluate(world.task("one", round_, "evaluate"))
    assert_same(trainer.model.weights(), train_plainly(spec, "one", toy_data()))
    restarted = world.join("one", toy_data())
    again = restarted.evaluate(world.task("one", 2, "evaluate"))
    assert again["test_loss"] == tested["test_loss"]
    assert restarted.train(world.task("one", 2))["train_loss"] == trained["train_loss"]  # a round back: from the start
    assert_same(restarted.model.weights(), trainer.model.weights())
    for metrics in (trained, tested, again):
        assert (metrics["bytes_up"], metrics["bytes_down"]) == (0, 0)
    assert world.split.requests + world.fed.requests == []
    assert list(world.body_store.list("runs")) + list(world.client_store.list("runs")) == []


def test_the_proximal_term_is_that_of_fedprox() -> None:
    """Against the loss with mu/2 * |w - w_t|^2 added, differentiated by torch: Li et al. 2020, arXiv:1812.06127."""
    mu = 0.3
    spec = spec_of(strategy={"name": "fedavg", "proximal_mu": mu, "client_optimizer": {"name": "SGD", "lr": 0.1}})
    world = World(spec)
    world.join("one", toy_data())
    world.run()
    model = build_parts(spec, ALLOWED).joined()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for round_ in range(spec.run.rounds):
        start = [parameter.detach().clone() for parameter in model.parameters()]
        for x, y in ordered(spec, "one", round_):
            away = sum(((w - w0) ** 2).sum() for w, w0 in zip(model.parameters(), start, strict=True))
            optimizer.zero_grad()
            (torch.nn.functional.cross_entropy(model(x), y) + mu / 2 * away).backward()
            optimizer.step()
    naive = {f"tail.{name}": tensor for name, tensor in model.state_dict().items()}
    ours = world.weights()
    for name in naive:
        torch.testing.assert_close(ours[name], naive[name], rtol=1e-5, atol=1e-6)
    without = World(spec_of(strategy={"name": "fedavg", "client_optimizer": {"name": "SGD", "lr": 0.1}}))
    without.join("one", toy_data())
    without.run()
    assert max((ours[name] - tensor).abs().max() for name, tensor in without.weights().items()) > 1e-3


def test_the_schedule_scales_the_clients_learning_rate_round_by_round() -> None:
    spec = spec_of(
        run={"rounds": 3},
        strategy={"name": "fedavg", "schedule": "cosine", "warmup_rounds": 1, "client_optimizer": MOMENTUM},
    )
    world = World(spec)
    world.join("one", toy_data())
    world.run()
    model = build_parts(spec, ALLOWED).joined()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for round_ in range(3):
        optimizer.param_groups[0]["lr"] = 0.05 * Schedule("cosine", rounds=3, warmup_rounds=1).factor(round_)
        for x, y in ordered(spec, "one", round_):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert_same(world.weights(), {f"tail.{name}": tensor for name, tensor in model.state_dict().items()})


def cse(rounds: int = 2, every: int = 2, u_shaped: bool = True, **strategy: Any) -> RunSpec:
    strategy = {"name": "cse-fsl", "send_every": every, "client_optimizer": MOMENTUM, **strategy}
    return spec_of(run={"rounds": rounds}, model={"u_shaped": u_shaped}, strategy=strategy)


def test_a_front_with_an_auxiliary_head_trains_as_a_model_of_the_two() -> None:
    """Its twin is plain PyTorch: front and head are one model, and nobody waits for anything else."""
    spec = cse()
    world = World(spec)
    world.join("one", toy_data())
    world.run()
    modules = client_side(spec, build_parts(spec, ALLOWED))
    front, aux = copy.deepcopy(modules["front"]), copy.deepcopy(modules["aux"])
    optimizer = torch.optim.SGD([*front.parameters(), *aux.parameters()], lr=0.05, momentum=0.9)
    for round_ in range(2):
        for x, y in ordered(spec, "one", round_):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(aux(front(x)), y).backward()
            optimizer.step()
    twin = {f"front.{name}": tensor for name, tensor in front.state_dict().items()}
    twin |= {f"aux.{name}": tensor for name, tensor in aux.state_dict().items()}
    ours = world.weights()
    assert_same({name: ours[name] for name in twin}, twin)
    assert {name.split(".")[0] for name in ours} == {"front", "aux", "body", "tail"}


@pytest.mark.parametrize("u_shaped", [True, False])
@pytest.mark.parametrize(("samples", "every"), [(24, 2), (24, 1), (22, 3), (24, 5)])
def test_every_so_manyth_batch_is_sent_and_the_bytes_saved_are_those_counted_by_hand(
    samples: int, every: int, u_shaped: bool
) -> None:
    """Batches of 8 samples and less; 5 activations, 4 outputs, in four bytes each; a label has eight."""
    spec = cse(rounds=1, every=every, u_shaped=u_shaped)
    world = World(spec)
    trainer = world.join("one", toy_data(samples))
    metrics = trainer.train(world.task("one", 0))
    sizes = [min(8, samples - start) for start in range(0, samples, 8)]
    path = "/v1/backward" if u_shaped else "/v1/step"
    asked = [one for _, one in world.split.requests]
    assert asked.count(path) == math.ceil(len(sizes) / every)
    unsent = sum(size for number, size in enumerate(sizes) if number % every)
    others = 2 * 4 * 4 if u_shaped else 8
    assert metrics["bytes_saved"] == sum(sizes) * 5 * 4 + unsent * (5 * 4 + others)
    units = [one.unit for one in read_contributions(world)]
    assert units == [number for number in range(len(sizes)) if number % every == 0]


def read_contributions(world: World) -> list[Any]:
    paths = [path for path in sorted(world.body_store.list("runs")) if "/gradients/" in path]
    return [Contribution.unpack(world.body_store.get(path), hashed=True) for path in paths]


def test_only_a_strategy_that_saves_bytes_says_how_many() -> None:
    world = World(spec_of())
    assert "bytes_saved" not in world.join("one", toy_data()).train(world.task("one", 0))


@pytest.mark.parametrize("u_shaped", [True, False])
def test_sending_in_the_background_gives_the_bits_of_sending_at_once(u_shaped: bool) -> None:
    """And an answer is not waited for: the first unit is answered only when the front has trained all batches."""
    spec = cse(rounds=1, every=1, u_shaped=u_shaped)
    hashes = []
    for in_flight in (0, 4):
        world = World(spec)
        trainer = world.join("one", toy_data())
        trainer.in_flight = in_flight
        trained = threading.Event()
        if in_flight:
            hold_until(world, trainer, trained)
        trainer.train(world.task("one", 0))
        assert trained.is_set() == bool(in_flight)
        world.close(0)
        hashes.append((world.body_hash(), world.client_hash()))
    assert hashes[0] == hashes[1]


def hold_until(world: World, trainer: Trainer, trained: threading.Event) -> None:
    """Answer nothing before the auxiliary head has made its last step of the round (3 batches)."""
    step, steps = trainer.model.auxiliary_step, []

    def counted(*arguments: Any) -> float:
        steps.append(step(*arguments))
        if len(steps) == 3:
            trained.set()
        return steps[-1]

    def held(_path: str, _body: bytes | None, ask: Any, order: Any) -> Any:
        assert trained.wait(20)
        return ask(order[0])

    trainer.model.auxiliary_step = counted  # type: ignore[method-assign]
    world.split.faults = held


def test_what_goes_wrong_in_the_background_comes_out_and_nothing_is_uploaded() -> None:
    world = World(cse(rounds=1, every=1))
    trainer = world.join("one", toy_data())
    trainer.in_flight = 4

    def closed(*_: Any) -> Any:
        raise RoundClosed("round 0 is closed")

    world.split.faults = closed
    with pytest.raises(RoundClosed):
        trainer.train(world.task("one", 0))
    assert all(path != "/v1/updates" for _, path in world.fed.requests)


def test_background_jobs_are_bounded_and_in_order() -> None:
    done: list[int] = []
    gate = threading.Event()

    def job(number: int) -> None:
        assert gate.wait(20)
        done.append(number)

    def put_all(background: Background) -> None:
        for number in range(5):
            background.put(lambda number=number: job(number))
            accepted.append(number)
        background.wait()

    accepted: list[int] = []
    with Background(4) as background:
        putting = threading.Thread(target=put_all, args=(background,))
        putting.start()
        while len(accepted) < 4:
            putting.join(0.01)
        putting.join(0.05)
        assert accepted == [0, 1, 2, 3]
        gate.set()
        putting.join(20)
    assert done == accepted == [0, 1, 2, 3, 4]


def test_each_begins_with_what_the_one_before_it_handed_on() -> None:
    """sl: no average; who comes second begins with the first one's weights of this round, and the last one's count."""
    spec = spec_of(run={"rounds": 2}, data={"clients": 3}, strategy={"name": "sl", "client_optimizer": MOMENTUM})
    world = World(spec)
    for number in range(3):
        world.join(f"c{number}", toy_data(seed=number))
    begun: dict[str, Tensors] = {}
    for client, trainer in world.trainers.items():
        keep_beginnings(trainer, client, begun)
    initial = {name: tensor for name, tensor in world.weights().items() if not name.startswith("body.")}
    for round_ in range(2):
        order = chosen(spec.run.seed, round_, sorted(world.trainers), 3, turns=True)
        world.round(round_)
        assert_same(begun[order[0]], initial)
        for before, after in pairwise(order):
            assert_same(begun[after], uploaded(world, round_, before))
        initial = uploaded(world, round_, order[-1])
        weights = world.weights()
        assert_same({name: weights[name] for name in initial}, initial)


def keep_beginnings(trainer: Trainer, client: str, begun: dict[str, Tensors]) -> None:
    begin = trainer.model.begin_round

    def noted(round_: int) -> None:
        begun[client] = trainer.model.weights()
        begin(round_)

    trainer.model.begin_round = noted  # type: ignore[method-assign]


def uploaded(world: World, round_: int, client: str) -> Tensors:
    content = world.client_store.get(f"runs/toy/rounds/{round_}/updates/{client}.safetensors")
    return Update.unpack(content, hashed=True).weights


def test_a_client_that_was_not_chosen_goes_on_with_the_optimizer_of_its_last_round() -> None:
    """Restarted or not, and the first time with a new one."""
    spec = spec_of(
        run={"rounds": 5, "participants": 1, "seed": 1}, data={"clients": 2}, strategy={"client_optimizer": MOMENTUM}
    )
    order = [chosen(spec.run.seed, round_, ["a", "b"], 1, turns=False)[0] for round_ in range(5)]
    pauses = [r for r in range(1, 5) if order[r] != order[r - 1] and order[r] in order[:r]]
    assert pauses  # somebody comes back after a round without it
    results = []
    for restarts in (False, True):
        world = World(spec)
        for number, client in enumerate(("a", "b")):
            world.join(client, toy_data(seed=number))
        for round_ in range(5):
            if restarts:
                world.join(order[round_], world.data[order[round_]])
            if round_ == pauses[0]:
                last = max(r for r in range(round_) if order[r] == order[round_])
                state = momentum_of(world, order[round_], round_)
                kept = Update.unpack(
                    world.client_store.get(f"runs/toy/rounds/{last}/updates/{order[round_]}.safetensors"), hashed=True
                ).optimizer
                assert kept
                assert_same(state, kept)
            world.round(round_)
        results.append((world.body_hash(), world.client_hash()))
    assert results[0] == results[1]


def momentum_of(world: World, client: str, round_: int) -> Tensors:
    """State that the client's optimizers begin the round with."""
    trainer = world.trainers[client]
    trainer._begin(world.task(client, round_))
    return trainer.model.optimizers()[0]


def test_units_pause_for_others_and_give_the_same() -> None:
    """Two clients unit by unit in turn, as a simulation trains them, and one after the other."""
    spec = spec_of(run={"rounds": 1}, data={"clients": 2}, strategy={"client_optimizer": MOMENTUM})
    hashes = []
    for interleaved in (False, True):
        world = World(spec)
        trainers = [world.join(client, toy_data(seed=seed)) for seed, client in enumerate(("a", "b"))]
        if interleaved:
            open_ = [trainer.steps(world.task(trainer.client, 0)) for trainer in trainers]
            rows = []
            while open_:
                for steps in list(open_):
                    try:
                        next(steps)
                    except StopIteration as done:
                        rows.append(done.value)
                        open_.remove(steps)
            assert [row["batches"] for row in rows] == [3, 3]
            world.close(0)
        else:
            world.round(0)
        hashes.append((world.body_hash(), world.client_hash()))
    assert hashes[0] == hashes[1]
