"""What names a unit of work, and every random number that depends on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class UnitKey:
    """Names one unit for ever: the same key is the same work, however often it is asked for.

    `unit` is the number, within the client's round, of the unit's first batch; so cutting a round into larger units
    renumbers no batch.
    """

    run: str
    round: int
    client: str
    unit: int


def seed_of(*parts: object) -> int:
    """A seed in [0, 2^63) that depends on every part and on nothing else (SHA-256 of their text)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def batch_seed(part: str, seed: int, key: UnitKey, batch: int) -> int:
    """The seed before `part` ("front", "body" or "tail") computes batch number `key.unit + batch` of a round.

    The run's name has no part in it: the same specification under another name gives the same model.
    """
    return seed_of(part, seed, key.round, key.client, key.unit + batch)
