"""Law 1: cut anywhere, one client, a commit per batch, any optimizer: the same parameters as plain PyTorch training."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from microsfl.core.partition import batches
from microsfl.core.unit import seed_of
from microsfl.spec import OPTIMIZERS
from microsfl.zoo.datasets import take
from microsfl.zoo.parts import build_parts
from tests.world import ALLOWED, MODELS, World, spec_of, toy_data, train_plainly

EXACT = {"rtol": 0.0, "atol": 0.0}


def optimizer(name: str) -> dict[str, object]:
    return {"name": name, "lr": 0.05, **({"momentum": 0.9, "weight_decay": 0.01} if name == "SGD" else {})}


def assert_equal(ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor], **tolerance: float) -> None:
    assert ours.keys() == plain.keys()
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name], **tolerance, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("u_shaped", [True, False], ids=["u-shaped", "vanilla"])
@pytest.mark.parametrize("model", ["plain", "dropout", "batchnorm", "masked"])
def test_law_1_a_commit_per_batch_is_plain_training(model: str, u_shaped: bool) -> None:
    spec = spec_of(model={"name": MODELS + model, "u_shaped": u_shaped}, strategy={"sync": 1})
    world = World(spec, replicas=2, spread="random")
    world.join("one", toy_data())
    world.run()
    plain = train_plainly(spec, "one", toy_data())
    assert_equal(world.weights(), plain, **EXACT)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "Muon"])
def test_law_1_with_any_optimizer_on_both_sides(name: str) -> None:
    spec = spec_of(strategy={"sync": 1, "body_optimizer": optimizer(name), "client_optimizer": optimizer(name)})
    world = World(spec, caches=False)  # so that every step reads the optimizer's state from its file
    world.join("one", toy_data())
    world.run()
    assert_equal(world.weights(), train_plainly(spec, "one", toy_data()), **EXACT)


@pytest.mark.parametrize("cut", [("0", "2"), ("0", "3"), ("1", "2"), ("1", "3")])
def test_law_1_cut_anywhere(cut: tuple[str, str]) -> None:
    spec = spec_of(model={"cut": list(cut)}, strategy={"sync": 1, "body_optimizer": optimizer("SGD")})
    spec = spec.model_copy(
        update={"strategy": spec.strategy.model_copy(update={"client_optimizer": spec.strategy.body_optimizer})}
    )
    world = World(spec)
    world.join("one", toy_data())
    world.run()
    # Cut or not, the same sums in the same order: what the place of the cut changes is only who computes them.
    plain = train_plainly(spec, "one", toy_data())
    whole = spec_of(strategy={"sync": 1, "body_optimizer": optimizer("SGD"), "client_optimizer": optimizer("SGD")})
    reference = train_plainly(whole, "one", toy_data())
    assert_equal(world.weights(), plain, **EXACT)
    assert [t.sum() for _, t in sorted((k.split(".", 1)[1], t) for k, t in plain.items())] == [
        t.sum() for _, t in sorted((k.split(".", 1)[1], t) for k, t in reference.items())
    ]


@pytest.mark.parametrize("model", ["plain", "batchnorm", "dropout"])
def test_law_1_units_of_several_batches_give_the_numbers_of_single_ones(model: str) -> None:
    """Front frozen: batches may travel together. Shapes differ then, so 1e-6 and not exact.

    BatchNorm's running statistics are not compared: one unit moves them by as many batches as it has.
    """
    base = {"front_update": "never", "body_optimizer": optimizer("SGD"), "sync": "round"}
    results = []
    for unit in (1, 2, 16):
        world = World(spec_of(model={"name": MODELS + model}, strategy={**base, "unit": unit}))
        world.join("one", toy_data(samples=28))  # three batches of 8 and one of 4, which is a unit of its own
        world.run()
        results.append({n: t for n, t in world.weights().items() if "running" not in n and "tracked" not in n})
    for result in results[1:]:
        assert_equal(result, results[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("reduce", ["mean-batches", "mean-samples", "sum"])
def test_law_1_a_round_is_one_step_on_the_mean_of_all_batch_gradients(reduce: str) -> None:
    spec = spec_of(
        run={"rounds": 1},
        data={"clients": 3},
        strategy={
            "front_update": "round",
            "tail_update": "round",
            "reduce": reduce,
            "body_optimizer": optimizer("SGD"),
        },
    )
    world = World(spec, replicas=2, spread="random")
    data = {f"c{i}": toy_data(samples=20 + i, seed=i) for i in range(3)}
    for client, local in data.items():
        world.join(client, local)
    world.run()
    assert_equal(_body(world.weights()), _one_big_step(spec, data, reduce), rtol=1e-6, atol=1e-6)


def _body(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith("body.")}


def _one_big_step(spec, data, reduce: str) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
    """Naive: the gradient of every batch on the initial weights, weighted, summed, one optimizer step."""
    parts = build_parts(spec, ALLOWED)
    model = parts.joined()
    total = [torch.zeros_like(p) for p in parts.body.parameters()]
    weight = 0.0
    for client, local in data.items():
        order = batches(
            len(local.share.train),
            batch_size=spec.data.batch_size,
            epochs=1,
            seed=seed_of("order", spec.run.seed, client, 0),
        )
        for indices in order:
            x, y = take(local.train, local.share.train[indices])
            loss = torch.nn.functional.cross_entropy(model(x), y)
            scale = float(len(y)) if reduce == "mean-samples" else 1.0
            for sum_, grad in zip(total, torch.autograd.grad(loss, list(parts.body.parameters())), strict=True):
                sum_ += scale * grad
            weight += scale
    step = torch.optim.SGD(parts.body.parameters(), **spec.strategy.body_optimizer.options)
    for parameter, gradient in zip(parts.body.parameters(), total, strict=True):
        parameter.grad = gradient if reduce == "sum" else gradient / weight
    step.step()
    return {f"body.{name}": tensor.detach() for name, tensor in parts.body.state_dict().items()}


def test_law_1_the_front_and_tail_steps_can_wait_for_the_round() -> None:
    """update = "round" is one step on the mean over the round's batches."""
    spec = spec_of(run={"rounds": 1}, strategy={"front_update": "round", "tail_update": "round"})
    world = World(spec)
    world.join("one", toy_data())
    world.run()
    plain = spec.model_copy(update={"data": spec.data.model_copy(update={"batch_size": 24})})
    expected = train_plainly(plain, "one", toy_data())  # equal batches: the mean of means is the mean over all
    ours = {name: tensor for name, tensor in world.weights().items() if not name.startswith("body.")}
    assert_equal(ours, {name: expected[name] for name in ours}, rtol=1e-6, atol=1e-6)


def test_law_1_breaks_when_the_seed_of_the_body_changes() -> None:
    """The test of the test: with other dropout the parameters differ."""
    spec = spec_of(model={"name": MODELS + "dropout"}, strategy={"sync": 1})
    world = World(spec)
    world.join("one", toy_data())
    world.run()
    other = spec.model_copy(update={"run": spec.run.model_copy(update={"seed": 1})})
    data = dataclasses.replace(toy_data())
    plain = train_plainly(other, "one", data)
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in world.weights().items())
