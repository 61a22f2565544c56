"""How long to go on trying a store that fails in a way that passes."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """Why an operation failed, in words without credentials, and whether trying again may help."""

    reason: str
    passes: bool


@dataclass(frozen=True)
class Retry:
    """Doubling pauses with jitter, until a budget of seconds is spent.

    The budget says when the last try may begin, so an operation ends at the latest one request's timeout after it.
    """

    budget_s: float
    first_pause_s: float = 0.02
    longest_pause_s: float = 2.0

    def pause_s(self, tries: int, spent_s: float) -> float | None:
        """Seconds to wait after `tries` failures in `spent_s` seconds; None: give up."""
        longest = min(self.longest_pause_s, self.first_pause_s * 2 ** min(tries - 1, 16))
        # Jitter, because replicas that were throttled together would come back together.
        pause = random.uniform(longest / 2, longest)
        return pause if spent_s + pause <= self.budget_s else None


NO_RETRY = Retry(budget_s=0.0)
