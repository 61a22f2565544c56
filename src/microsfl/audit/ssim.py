"""Structural similarity of images: Wang, Bovik, Sheikh and Simoncelli 2004, IEEE Trans. Image Processing 13(4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# The paper's constants: section III-C.
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def ssim(first: Tensor, second: Tensor, *, data_range: float) -> Tensor:
    """The mean SSIM index of each pair of images, [n] float64: 1 for equal images, at least -1.

    Every window lies wholly within the image; where a side is shorter than the paper's 11 pixels, the window is the
    largest odd number of pixels that fits. Channels are compared one by one and averaged.

    Args:
        first, second: [n, channels, height, width]. data_range: largest minus smallest value that a pixel can have.
    """
    x, y = first.double(), second.double()
    kernel = _gaussian(min(WINDOW, *(side - 1 + side % 2 for side in x.shape[2:]))).to(x)
    mean_x, mean_y = _blur(x, kernel), _blur(y, kernel)
    variance_x = _blur(x * x, kernel) - mean_x**2
    variance_y = _blur(y * y, kernel) - mean_y**2
    covariance = _blur(x * y, kernel) - mean_x * mean_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast_and_structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * contrast_and_structure).mean(dim=(1, 2, 3))


def _gaussian(size: int) -> Tensor:
    """[size] float64, with sum 1."""
    place = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-(place**2) / (2 * SIGMA**2))
    return weights / weights.sum()


def _blur(x: Tensor, kernel: Tensor) -> Tensor:
    """[n, channels, h, w] -> [n, channels, h - size + 1, w - size + 1], weighted by the kernel in both directions."""
    n, channels, height, width = x.shape
    rows = functional.conv2d(x.reshape(n * channels, 1, height, width), kernel.reshape(1, 1, -1, 1))
    both = functional.conv2d(rows, kernel.reshape(1, 1, 1, -1))
    return both.reshape(n, channels, *both.shape[2:])
