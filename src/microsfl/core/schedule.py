"""How learning rates change over the rounds of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self


class Rates(Protocol):
    """What a strategy says about the learning rates over the rounds; the fields of `Schedule`."""

    @property
    def schedule(self) -> str: ...
    @property
    def warmup_rounds(self) -> int: ...
    @property
    def step_rounds(self) -> int: ...
    @property
    def step_factor(self) -> float: ...


@dataclass(frozen=True)
class Schedule:
    """A factor for each round, by which the learning rates of the body and of the clients are multiplied.

    kind: "constant"; "cosine", half a period of the cosine from 1 down to 0 after the last round (Loshchilov and
    Hutter 2017, arXiv:1608.03983, without restarts); "step", times step_factor every step_rounds rounds, counted from
    round 0. The first warmup_rounds rounds rise to the full rate in equal steps (Goyal et al. 2017, arXiv:1706.02677);
    the cosine then spans the rounds that are left.
    """

    kind: str
    rounds: int
    warmup_rounds: int = 0
    step_rounds: int = 10
    step_factor: float = 0.5

    @classmethod
    def of(cls, rates: Rates, rounds: int) -> Self:
        """Of a strategy, for a run of that many rounds."""
        return cls(rates.schedule, rounds, rates.warmup_rounds, rates.step_rounds, rates.step_factor)

    def factor(self, round_: int) -> float:
        """Factor of the round, from 0 on: more than 0, at most 1; exactly 1.0 for "constant" after the warm-up.

        Raises:
            ValueError: for a kind that does not exist.
        """
        if round_ < self.warmup_rounds:
            return (round_ + 1) / self.warmup_rounds
        if self.kind == "constant":
            return 1.0
        if self.kind == "cosine":
            # A run that its own loops drive may go beyond its last round: the rate stays what it was there.
            span = max(1, self.rounds - self.warmup_rounds)
            done = min(round_ - self.warmup_rounds, span - 1)
            return 0.5 * (1.0 + math.cos(math.pi * done / span))
        if self.kind == "step":
            return float(self.step_factor ** (round_ // self.step_rounds))
        raise ValueError(f"There is no schedule '{self.kind}'; use constant, cosine or step.")
