"""Patience with a database that is away for a while."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import StoreUnavailable
from ..process import event

PATIENCE_S = 60.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0

Result = TypeVar("Result")


async def insist(
    work: Callable[[], Result], patience_s: float = PATIENCE_S, again: Callable[[], None] = lambda: None
) -> Result:
    """What `work`, which blocks, returns; it is tried again, in growing pauses, until `patience_s` are over.

    `again` is told of each try after the first.

    Whoever insists must mean something that may be done twice: an answer can be lost after the deed.

    Raises:
        StoreUnavailable: as the last attempt raised it.
    """
    began, pause_s = time.monotonic(), FIRST_PAUSE_S
    while True:
        try:
            return await asyncio.to_thread(work)
        except StoreUnavailable as error:
            waited_s = time.monotonic() - began
            if waited_s + pause_s > patience_s:
                raise
            event(
                "database away", logging.WARNING, waited_s=round(waited_s, 1), patience_s=patience_s, error=str(error)
            )
        await asyncio.sleep(pause_s)
        again()
        pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
