"""Whether the coordinator can work: its database answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from ..errors import OperationError
from ..records import Records

FRESH_S = 1.0  # so often is the database asked at most, whoever asks here


class Readiness:
    """Of one event loop. Times are seconds of `clock`."""

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records, self._clock = records, clock
        self._asking, self._asked_at, self._problem = asyncio.Lock(), -math.inf, ""

    async def problem(self) -> str:
        """Nothing, or why it cannot work now."""
        async with self._asking:
            if self._clock() - self._asked_at >= FRESH_S:
                self._asked_at, self._problem = self._clock(), await asyncio.to_thread(self._ask)
            return self._problem

    def _ask(self) -> str:
        try:
            self._records.ping()
        except OperationError as error:
            return str(error)
        return ""
