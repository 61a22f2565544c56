"""audit/: structural similarity, distance correlation, and label inference from gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from microsfl.audit.distance import distance_correlation, independence_level
from microsfl.audit.labels import exchange, few_of_each, infer_labels, nearest_direction
from microsfl.audit.ssim import ssim
from microsfl.core.cut import cut_model
from microsfl.core.randomness import generator
from tests import toys

SEEDS = st.integers(0, 999)


def images(seed: int, n: int = 3, channels: int = 1, height: int = 13, width: int = 12) -> Tensor:
    return torch.rand(n, channels, height, width, generator=generator(seed), dtype=torch.float64)


# SSIM


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(1, 3), st.integers(3, 20), st.integers(3, 20), st.floats(0.1, 10))
def test_ssim_is_one_for_equal_images_symmetric_and_bounded(
    seed: int, channels: int, height: int, width: int, scale: float
) -> None:
    x, y = (images(seed + i, 2, channels, height, width) for i in range(2))
    torch.testing.assert_close(ssim(x, x, data_range=1.0), torch.ones(2, dtype=torch.float64))
    found = ssim(x, y, data_range=1.0)
    torch.testing.assert_close(found, ssim(y, x, data_range=1.0))
    assert ((found >= -1) & (found < 1)).all()
    torch.testing.assert_close(found, ssim(scale * x, scale * y, data_range=scale))


def test_ssim_of_flat_images_is_the_luminance_term_alone() -> None:
    """With no variance the formula is (2ab + C1) / (a² + b² + C1)."""
    first, second = torch.full((1, 1, 16, 16), 0.3), torch.full((1, 1, 16, 16), 0.8)
    expected = (2 * 0.3 * 0.8 + 1e-4) / (0.3**2 + 0.8**2 + 1e-4)
    assert ssim(first, second, data_range=1.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("height", "width", "size"), [(14, 13, 11), (8, 8, 7), (5, 9, 5), (6, 30, 5)])
def test_ssim_is_the_papers_formula_window_by_window(height: int, width: int, size: int) -> None:
    x, y = images(1, 1, 1, height, width), images(2, 1, 1, height, width)
    a, b = x[0, 0].numpy(), y[0, 0].numpy()
    place = np.arange(size) - size // 2
    weights = np.exp(-(place[:, None] ** 2 + place[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for top in range(height - size + 1):
        for left in range(width - size + 1):
            p, q = (image[top : top + size, left : left + size] for image in (a, b))
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            cov = (weights * (p - mean_p) * (q - mean_q)).sum()
            var_p, var_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
            luminance = (2 * mean_p * mean_q + 0.01**2) / (mean_p**2 + mean_q**2 + 0.01**2)
            values.append(luminance * (2 * cov + 0.03**2) / (var_p + var_q + 0.03**2))
    assert ssim(x, y, data_range=1.0).item() == pytest.approx(np.mean(values), rel=1e-9)


def test_more_noise_is_less_similar() -> None:
    x = images(0)
    noise = torch.randn(x.shape, generator=generator(5), dtype=x.dtype)
    found = [ssim(x, x + std * noise, data_range=1.0).mean().item() for std in (0.01, 0.1, 0.5, 2.0)]
    assert found == sorted(found, reverse=True)


# Distance correlation


def naive_distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    def centred(values: np.ndarray) -> np.ndarray:
        a = np.array([[np.linalg.norm(one - other) for other in values] for one in values])
        return a - a.mean(0) - a.mean(1)[:, None] + a.mean()

    a, b = centred(x), centred(y)
    return float(np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean())))


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(3, 20), st.integers(1, 5), st.integers(1, 5), st.floats(0.01, 100), st.floats(-50, 50))
def test_distance_correlation_is_the_definition_and_knows_no_scale(
    seed: int, n: int, first: int, second: int, scale: float, shift: float
) -> None:
    draw = generator(seed)
    x, y = torch.randn(n, first, generator=draw), torch.randn(n, second, generator=draw)
    found = distance_correlation(x, y)
    assert found == pytest.approx(naive_distance_correlation(x.double().numpy(), y.double().numpy()), abs=1e-6)
    assert distance_correlation(x, x) == pytest.approx(1.0)
    assert distance_correlation(scale * x + shift, y) == pytest.approx(found, abs=1e-3)
    rotation = torch.linalg.qr(torch.randn(first, first, generator=draw)).Q
    assert distance_correlation(x, x @ rotation) == pytest.approx(1.0, abs=1e-4)


def test_independent_samples_come_near_the_level_and_dependent_ones_do_not() -> None:
    draw = generator(0)
    x, y = torch.randn(400, 3, generator=draw), torch.randn(400, 3, generator=draw)
    level = independence_level(x, y, generator(1))
    assert distance_correlation(x, y) == pytest.approx(level, abs=0.05)
    # Dependent without any linear correlation.
    assert distance_correlation(x, x**2) > 2 * level


def test_the_bias_shrinks_with_samples_and_grows_with_dimensions() -> None:
    def level(n: int, dimensions: int) -> float:
        draw = generator(2)
        x, y = (torch.randn(n, dimensions, generator=draw) for _ in range(2))
        return distance_correlation(x, y)

    assert level(50, 5) > level(200, 5) > level(800, 5)
    assert level(100, 2) < level(100, 10) < level(100, 50) == pytest.approx(0.9, abs=0.1)


def test_what_is_constant_depends_on_nothing() -> None:
    assert distance_correlation(torch.ones(10, 3), torch.rand(10, 2, generator=generator(0))) == 0.0


# Label inference


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(2, 6), st.floats(1e-6, 1e6))
def test_directions_far_apart_are_told_apart_at_any_length(seed: int, classes: int, scale: float) -> None:
    draw = generator(seed)
    labels = torch.randint(classes, (40,), generator=draw)
    rows = torch.eye(classes)[labels] + 0.1 * torch.randn(40, classes, generator=draw)
    lengths = scale * (0.1 + torch.rand(40, 1, generator=draw))
    known = few_of_each(labels, 2)
    kinds = labels[known]
    assert (torch.bincount(kinds, minlength=classes) <= 2).all()
    assert set(kinds.tolist()) == set(labels.tolist())
    assert torch.equal(nearest_direction(rows[known], kinds, lengths * rows), labels)


def test_the_gradients_are_those_of_plain_training() -> None:
    parts = cut_model(toys.plain((6,), 3), "auto", u_shaped=True)
    draw = generator(0)
    x, y = torch.rand(10, 6, generator=draw), torch.randint(3, (10,), generator=draw)
    seen = exchange(parts, x, y, batch_size=4, seed=0)
    for begin in range(0, 10, 4):
        place = slice(begin, begin + 4)
        outputs = parts.body(parts.front(x[place])).detach().requires_grad_()
        functional.cross_entropy(parts.tail(outputs), y[place]).backward()
        torch.testing.assert_close(seen.outputs[place], outputs.detach())
        torch.testing.assert_close(seen.gradients[place], outputs.grad)


def test_gradients_tell_the_labels_even_of_a_model_that_learned_nothing() -> None:
    """Inputs and labels have nothing to do with each other, so the outputs cannot tell; the gradients can."""
    model = nn.Sequential(nn.Linear(5, 16), nn.Linear(16, 16), nn.Linear(16, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(parameter.numel())) / 4)
    parts = cut_model(model, ("0", "1"), u_shaped=True)
    draw = generator(1)
    x, y = torch.rand(400, 5, generator=draw), torch.randint(4, (400,), generator=draw)
    seen = exchange(parts, x, y, batch_size=32, seed=0)
    few = few_of_each(y)
    known = type(seen)(seen.outputs[few], seen.gradients[few])
    found = infer_labels(known, y[few], seen, y)
    assert found.from_gradients > 0.95
    assert found.from_outputs < 0.45
    assert found.chance == pytest.approx(y.bincount().max().item() / 400)
