"""Clipping and noise on smashed data."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.core.privacy import protect
from microsfl.core.randomness import SecretGenerator, generator
from microsfl.wire.tensors import decode
from tests.world import MODELS, World, spec_of, toy_data

Tensors = dict[str, torch.Tensor]


@settings(deadline=None)
@given(
    st.integers(1, 6),
    st.lists(st.integers(1, 4), max_size=3),
    st.floats(1e-3, 10),
    st.floats(1e-4, 1e4),
    st.integers(0, 99),
)
def test_no_sample_is_larger_than_the_bound_and_one_within_it_keeps_its_bits(
    samples: int, shape: list[int], clip_norm: float, scale: float, seed: int
) -> None:
    x = scale * torch.randn(samples, *shape, generator=generator(seed))
    clipped = protect(x, clip_norm=clip_norm, noise_std=0.0)
    before, after = (tensor.reshape(samples, -1).norm(dim=1) for tensor in (x, clipped))
    assert (after <= clip_norm * (1 + 1e-6)).all()
    within = before <= clip_norm
    assert torch.equal(clipped[within], x[within])
    torch.testing.assert_close(after[~within], torch.full_like(after[~within], clip_norm))


def test_the_gradient_goes_through_the_clipping() -> None:
    x = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: protect(t, clip_norm=1.0, noise_std=0.0), x[:2].detach().requires_grad_())
    protect(x, clip_norm=1.0, noise_std=0.0).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], torch.tensor([4.0, -3.0], dtype=torch.float64) / 125)
    assert torch.equal(x.grad[1:], torch.ones(2, 2, dtype=torch.float64))


def test_the_noise_has_the_standard_deviation_and_nothing_else_changes() -> None:
    x = torch.zeros(200, 500)
    noisy = protect(x, clip_norm=0.0, noise_std=0.3, generator=generator(0))
    assert noisy.std().item() == pytest.approx(0.3, rel=0.01)
    assert abs(noisy.mean().item()) < 0.005
    assert protect(x, clip_norm=0.0, noise_std=0.0) is x
    mask = x > 0
    assert protect(mask, clip_norm=1.0, noise_std=0.3, generator=generator(0)) is mask
    with pytest.raises(ValueError, match="generator"):
        protect(x, clip_norm=0.0, noise_std=0.3)


@pytest.mark.parametrize("shape", [(100_001,), (400, 25, 10)])
def test_secret_noise_is_normal_and_decided_by_key_and_context(shape: tuple[int, ...]) -> None:
    drawn = SecretGenerator(b"key", "train", 1).normal(shape, torch.float64)
    assert drawn.shape == shape
    numbers = drawn.flatten()
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert (numbers**power).mean().item() == pytest.approx(moment, abs=0.1)
    assert ((numbers.abs() < 1).double().mean().item()) == pytest.approx(0.6827, abs=0.01)
    assert torch.equal(drawn, SecretGenerator(b"key", "train", 1).normal(shape, torch.float64))
    for key, context in ((b"kez", ("train", 1)), (b"key", ("train", 2)), (b"keyt", ("rain", 1))):
        assert (drawn - SecretGenerator(key, *context).normal(shape, torch.float64)).abs().mean() > 1


def test_tensors_that_cross_together_have_secret_noise_of_their_own() -> None:
    one = SecretGenerator(b"key")
    first, second = (protect(torch.zeros(8, 8), clip_norm=0.0, noise_std=1.0, generator=one) for _ in range(2))
    assert (first - second).abs().min() > 0


def test_private_noise_is_from_no_generator_of_torch_whose_every_seed_can_be_tried() -> None:
    seed = 2**40 + 7
    assert torch.equal(torch.randn(9, generator=generator(seed)), torch.randn(9, generator=generator(7)))
    model = World(spec_of(privacy={"noise_std": 0.1})).join("one", toy_data()).model
    assert isinstance(model._noise(0, "one", "train", 0), SecretGenerator)


def sent_by(world: World) -> list[bytes]:
    """Every body that went to a split server."""
    bodies: list[bytes] = []

    def listen(_path, body, ask, order):  # type: ignore[no-untyped-def]
        bodies.append(body)
        return ask(order[0])

    world.split.faults = listen
    return bodies


def played(noise_seed: str) -> tuple[list[bytes], list[bytes]]:
    """What a client sends in training and evaluating one round, and what a second process of it sends in doing so."""
    spec = spec_of(privacy={"clip_norm": 1.0, "noise_std": 0.1, "noise_seed": noise_seed})
    world = World(spec)
    bodies = sent_by(world)
    for _ in range(2):
        trainer = world.join("one", toy_data())
        trainer.train(world.task("one", 0))
        trainer.evaluate(world.task("one", 0, "evaluate"))
    half = len(bodies) // 2
    return bodies[:half], bodies[half:]


def test_noise_from_the_runs_seed_is_drawn_again_after_a_restart() -> None:
    first, again = played("run")
    assert first == again
    assert len(set(first)) == len(first)


def test_private_noise_is_drawn_from_what_no_other_process_knows() -> None:
    first, again = played("private")
    assert not set(first) & set(again)


def test_every_activation_that_is_sent_has_a_noise_of_its_own_and_a_mask_has_none() -> None:
    """Training and evaluation, each round: noise that came twice could be taken off by a subtraction."""

    def activations(noise_std: float) -> list[Tensors]:
        noise = {"noise_std": noise_std, "noise_seed": "run"} if noise_std else {}
        world = World(spec_of(model={"name": f"{MODELS}masked"}, strategy={"front_update": "never"}, privacy=noise))
        bodies = sent_by(world)
        world.join("one", toy_data(samples=8))  # one batch, in training as in evaluation
        for round_ in range(2):
            world.round(round_)
            world.trainers["one"].evaluate(world.task("one", round_, "evaluate"))
        return [decode(body).tensors for body in bodies if b"activations.0" in body]

    plain, noisy = activations(0.0), activations(0.5)
    assert len(plain) == len(noisy) == 4
    noises = [other["activations.0"] - one["activations.0"] for one, other in zip(plain, noisy, strict=True)]
    for one, other, noise in zip(plain, noisy, noises, strict=True):
        assert one["activations.1"].dtype is torch.bool
        assert torch.equal(one["activations.1"], other["activations.1"])
        assert noise.std().item() == pytest.approx(0.5, rel=0.3)
    assert all((one - other).abs().max() > 0.1 for one, other in combinations(noises, 2))
