"""audit/: the inversion finds what is there and nothing where nothing is; pre-training against it takes from it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microsfl.audit.decoders import Decoder
from microsfl.audit.inversion import (
    is_image,
    learn_inversion,
    mean_squared_error,
    quality,
    reconstruct,
    shuffled,
)
from microsfl.audit.pretraining import RIDGE, Epoch, Recipe, best_linear_error, pretrain
from microsfl.audit.smashed import Protection, View
from microsfl.core.cut import Parts, cut_model
from microsfl.core.randomness import generator
from microsfl.zoo.datasets import load_data
from microsfl.zoo.models import build_model
from tests import toys


def digits() -> tuple[Tensor, Tensor, Tensor]:
    """(attacker's inputs, their labels, victims' inputs) of the bundled digits, [n, 1, 8, 8]."""
    data = load_data("digits", None)
    x, y = data.train[:]  # type: ignore[index]
    return x[:600], y[:600], x[600:900]


def linear_front(seed: int = 0) -> Parts:
    model = build_model("linear-front", input_shape=(1, 8, 8), classes=10, seed=seed, allowed=())
    return cut_model(model, "auto", u_shaped=True)


def attacked(front: nn.Module, protection: Protection, *, epochs: int = 3) -> tuple[float, float]:
    """(mean squared error of the inversion, of the mean input) on the victims."""
    x, _, victims = digits()
    view = View(front, protection, seed=1)
    decoder = learn_inversion(view, x, epochs=epochs, seed=0)
    return mean_squared_error(reconstruct(decoder, view, victims), victims), mean_squared_error(
        x.mean(dim=0).expand_as(victims), victims
    )


def folded(width: int) -> nn.Module:
    """A front with a ReLU, which no linear map inverts as well as it can be."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(0)) / 8)
    return model


@pytest.mark.parametrize(("front", "epochs"), [(nn.Identity(), 8), (nn.Flatten(), 1)])
def test_an_identity_is_inverted(front: nn.Module, epochs: int) -> None:
    """By the convolutional network and by the linear map."""
    found, guessed = attacked(front, Protection(), epochs=epochs)
    assert found < 0.2 * guessed


def test_a_linear_front_of_full_rank_is_inverted_exactly() -> None:
    found, guessed = attacked(linear_front().front, Protection())
    assert found < 1e-3 * guessed


def test_pure_noise_is_not_inverted() -> None:
    found, guessed = attacked(linear_front().front, Protection(noise_std=1e3))
    assert found == pytest.approx(guessed, rel=0.05)


def test_noise_and_clipping_leave_less_to_invert() -> None:
    front = linear_front().front
    settings = [(0.0, 0.0), (0.0, 0.1), (0.0, 0.5), (0.5, 0.5)]
    found = [attacked(front, Protection(clip, std))[0] for clip, std in settings]
    assert found == sorted(found)
    assert found[-1] > 2 * found[1]


def test_training_improves_on_the_linear_reconstruction() -> None:
    linear, guessed = attacked(folded(48), Protection(), epochs=1)
    trained, _ = attacked(folded(48), Protection(), epochs=25)
    assert trained < 0.85 * linear < 0.5 * guessed


def test_an_attack_is_a_function_of_its_seed_and_leaves_the_generators_alone() -> None:
    front, noisy = folded(16), Protection(noise_std=0.1)
    before = torch.get_rng_state()
    assert attacked(front, noisy) == attacked(front, noisy)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("smashed", "inputs"),
    [((5,), (7,)), ((64,), (1, 8, 8)), ((4, 3, 3), (1, 8, 8)), ((3, 9, 5), (3, 9, 5)), ((2, 12, 10), (1, 9, 5)),
     ((6, 5), (4,))],
)  # fmt: skip
def test_decoders_turn_any_shape_into_the_inputs_and_begin_at_their_mean(
    smashed: tuple[int, ...], inputs: tuple[int, ...]
) -> None:
    x = torch.rand(6, *inputs, generator=generator(0))
    decoder = Decoder(smashed, x)
    crossing = 1e4 * torch.rand(6, *smashed, generator=generator(1))
    torch.testing.assert_close(decoder(crossing), x.mean(dim=0).expand_as(x))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(1.0)
    assert decoder.within_range(crossing).shape == x.shape
    assert decoder.within_range(crossing).max() <= x.max()


def test_what_crosses_beside_a_mask_is_one_tensor_and_the_mask_is_not_noisy() -> None:
    parts = cut_model(toys.masked((6,), 3), "auto", u_shaped=True)
    x = torch.rand(4, 6, generator=generator(0)) - 0.5
    plain, noisy = (View(parts.front, Protection(noise_std=std), seed=0)(x) for std in (0.0, 0.5))
    assert plain.shape == (4, 10)
    assert torch.equal(plain[:, 5:], noisy[:, 5:])
    assert not torch.equal(plain[:, :5], noisy[:, :5])


@pytest.mark.parametrize(
    ("shape", "image"), [((1, 8, 8), True), ((3, 9, 5), True), ((8, 8), True), ((64,), False), ((5, 8, 8), False),
                         ((1, 2, 8), False), ((), False)]
)  # fmt: skip
def test_what_is_an_image(shape: tuple[int, ...], image: bool) -> None:
    assert is_image(shape) == image
    x = torch.rand(2, *shape, generator=generator(0))
    assert (quality(x, x, data_range=1.0).ssim is not None) == image


@pytest.mark.parametrize(("samples", "batch_size"), [(1, 4), (4, 4), (5, 4), (9, 4), (129, 128), (1000, 64)])
def test_shuffled_batches_have_every_sample_once_and_none_is_of_one_sample(samples: int, batch_size: int) -> None:
    batches = shuffled(samples, batch_size)
    assert sorted(torch.cat(batches).tolist()) == list(range(samples))
    assert samples == 1 or min(len(batch) for batch in batches) > 1


@pytest.mark.parametrize(("samples", "features"), [(30, 4), (12, 40)])
def test_the_linear_error_is_that_of_leaving_one_out_and_fitting_the_others(samples: int, features: int) -> None:
    draw = generator(0)
    z, x = (torch.randn(samples, size, generator=draw, dtype=torch.float64) for size in (features, 3))
    x = x + z[:, :3]
    centred = z - z.mean(dim=0)
    penalty = RIDGE * centred.square().sum() / min(z.shape)
    errors = []
    for one in range(samples):
        others = torch.arange(samples) != one
        mean_z, mean_x = z[others].mean(dim=0), x[others].mean(dim=0)
        near = z[others] - mean_z
        square = near.T @ near + penalty * torch.eye(features, dtype=z.dtype)
        found = mean_x + (z[one] - mean_z) @ torch.linalg.solve(square, near.T @ (x[others] - mean_x))
        errors.append((found - x[one]).square().mean())
    error = best_linear_error(z, x)
    torch.testing.assert_close(error, torch.stack(errors).mean())
    rotation = torch.linalg.qr(torch.randn(features, features, generator=draw, dtype=z.dtype)).Q
    torch.testing.assert_close(best_linear_error(1e3 * z @ rotation + 5, x), error)
    assert torch.autograd.gradcheck(lambda t: best_linear_error(t, x), z.requires_grad_(), eps=1e-4, atol=1e-3)


def recipe(weight: float, **more: object) -> Recipe:
    values = {
        "epochs": 30,
        "lr": 2e-3,
        "adversary": "linear",
        "adversarial_weight": weight,
        "decoder_steps": 2,
        "protection": Protection(noise_std=0.1),
        "seed": 0,
        **more,
    }
    return Recipe(**values)  # type: ignore[arg-type]


def pretrained(weight: float, **more: object) -> tuple[Parts, list[Epoch]]:
    x, y, _ = digits()
    parts = linear_front()
    return parts, pretrain(parts, x, y, recipe(weight, **more))


def test_a_front_trained_against_a_decoder_gives_less_away_at_a_similar_accuracy() -> None:
    """The judge is a fresh decoder, not the one of the game."""
    alone, alone_epochs = pretrained(0.0)
    against, against_epochs = pretrained(3.0)
    protection = Protection(noise_std=0.1)
    open_, guarded = (attacked(parts.front, protection)[0] for parts in (alone, against))
    assert guarded > 1.5 * open_
    assert against_epochs[-1].accuracy > 0.8
    assert against_epochs[-1].accuracy > alone_epochs[-1].accuracy - 0.1


@pytest.mark.parametrize("adversary", ["linear", "network"])
def test_pretraining_is_a_function_of_its_seed_and_leaves_the_generators_alone(adversary: str) -> None:
    before = torch.get_rng_state()
    more = {"epochs": 1, "adversary": adversary}
    first, second, other = (pretrained(10.0, **more, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert first[1] == second[1] != other[1]
    states = [parts.front.state_dict() for parts, _ in (first, second)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_each_epoch_is_reported_with_the_guess_to_compare_with() -> None:
    x, y, _ = digits()
    seen: list[Epoch] = []
    done = pretrain(linear_front(), x, y, recipe(1.0, epochs=3, decoder_steps=1), on_epoch=seen.append)
    assert seen == done
    assert [epoch.number for epoch in done] == [0, 1, 2]
    assert all(0 <= epoch.accuracy <= 1 and epoch.decoder_mse > 0 for epoch in done)
    assert done[-1].mean_input_mse == done[0].mean_input_mse > done[-1].decoder_mse
