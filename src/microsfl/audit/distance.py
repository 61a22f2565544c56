"""Distance correlation: Székely, Rizzo and Bakirov 2007, Annals of Statistics 35(6), definitions 4 and 5."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 2000  # samples; the distances of all pairs are in memory at once
PERMUTATIONS = 5


def distance_correlation(x: Tensor, y: Tensor) -> float:
    """How far y depends on x in any way, linear or not, in 0 … 1.

    With a_ij = |x_i - x_j| and A_ij = a_ij - mean_j(a_ij) - mean_i(a_ij) + mean(a_ij), B likewise from y:
    dCov²(x, y) = mean(A_ij B_ij) and dCor = sqrt(dCov²(x, y) / sqrt(dCov²(x, x) dCov²(y, y))). It is 1 for y = x (and
    any other rotation, shift or scaling of x), 0 in the limit of many samples exactly when x and y are independent, and
    0 by definition when either is constant.

    The estimate is biased upwards: for independent x and y of d dimensions each and n samples it goes to 0 only as n
    grows, and to 1 as d grows while n stays (with n = 100 and d = 50 it is about 0.9). `independence_level` is what
    to compare it with.

    Args:
        x, y: [n, …], the same n samples.
    """
    a, b = _centred_distances(x), _centred_distances(y)
    both = float((a * b).mean())
    spread = float((a * a).mean() * (b * b).mean()) ** 0.5
    return float(max(0.0, both) / spread) ** 0.5 if spread > 0 else 0.0


def independence_level(x: Tensor, y: Tensor, generator: torch.Generator) -> float:
    """What `distance_correlation` comes to for as many samples of the same distributions that have nothing to do with
    each other: its mean over random re-pairings of x and y."""
    orders = [torch.randperm(len(y), generator=generator) for _ in range(PERMUTATIONS)]
    return sum(distance_correlation(x, y[order.to(y.device)]) for order in orders) / len(orders)


def _centred_distances(x: Tensor) -> Tensor:
    """[n, n] float64."""
    # In float64 and about the mean, as torch takes distances from products, which cost near neighbours half the digits.
    flat = x.reshape(len(x), -1).double()
    flat = flat - flat.mean(dim=0)
    distances = torch.cdist(flat, flat)
    return distances - distances.mean(0, keepdim=True) - distances.mean(1, keepdim=True) + distances.mean()
