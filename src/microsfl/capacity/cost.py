"""The cost model of docs/concepts/performance.md: what a round costs one client, in bytes, requests and files.

The page shows what follows the imports as it stands here.
"""

from __future__ import annotations

from math import ceil


def batches(samples: int, batch: int) -> tuple[int, bool]:
    """(batches of full length, whether there is one of another): a single sample that is left joins the last."""
    whole, rest = divmod(samples, batch)
    joined = rest == 1 and whole > 0
    return whole - joined, rest > 0


def units(samples: int, batch: int, unit: int, epochs: int = 1) -> int:
    """Batches of one length travel together."""
    full, odd = batches(samples, batch)
    return epochs * (ceil(full / unit) + 1) if odd else ceil(epochs * full / unit)


def crossing(
    samples: int,
    batch: int,
    unit: int,
    activations: float,
    outputs: float,
    *,
    u_shaped: bool,
    front_trained: bool,
    epochs: int = 1,
) -> tuple[float, float, int]:
    """(bytes up, bytes down, requests) of a round's units."""
    sent, seen = units(samples, batch, unit, epochs), epochs * samples
    back = seen * activations * front_trained  # the cut-layer gradient
    if u_shaped:
        return seen * (activations + outputs), seen * outputs + back, 2 * sent
    return seen * (activations + 8), back + 4 * epochs * sum(batches(samples, batch)), sent  # labels; losses


def hand_out(client_side: int, optimizer: int) -> tuple[int, int, int]:
    """(bytes up, bytes down, requests) of the fed server's part in a round: an upload, and the average."""
    return client_side + optimizer, client_side, 2


def body_files(samples: int, batch: int, unit: int, body: int, epochs: int = 1) -> tuple[int, int]:
    """(files, bytes) that a round leaves in the body area for one client: a contribution a unit."""
    return units(samples, batch, unit, epochs), units(samples, batch, unit, epochs) * body
