"""A call that any of several servers may answer: beside one that hangs without dying, another is asked.

Every call of the data plane can be made twice: whoever comes second finds what the first one wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

LOOK_EVERY_S = 1.0
GONE_S = 3.0  # for so long a server that is not named any more may still be about to answer

Answer = TypeVar("Answer")


class Failed(Exception):
    """A try came to nothing; another server may do better."""


async def first_answer(
    ask: Callable[[str], Awaitable[Answer]],
    first: str,
    others: Sequence[str],
    patience_s: float,
    named: Callable[[], Sequence[str]],
) -> Answer:
    """The answer of `first`, or of the others that are asked one after another while nobody answers.

    Args:
        patience_s: how long one is waited for before the next one is asked, too.
        named: those that are there now; who is not among them any more is waited for no longer than `GONE_S`.

    Raises:
        Failed: when all that were asked failed; those that were not asked are the caller's affair.
        Exception: whatever else one of them raises.
    """
    waiting, asked, rest = {_begun(ask(first))}, first, list(others)
    waited_s, problem = 0.0, Failed()
    while waiting:
        done, waiting = await asyncio.wait(waiting, timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            try:
                return one.result()
            except Failed as failed:
                problem = failed
        waited_s += LOOK_EVERY_S
        hangs = waited_s >= patience_s or (waited_s >= GONE_S and asked not in named())
        if waiting and rest and hangs:
            asked, waited_s = rest.pop(0), 0.0
            waiting.add(_begun(ask(asked)))
    raise problem


def _begun(call: Awaitable[Answer]) -> asyncio.Future[Answer]:
    """One that is not waited for any more may fail all the same, of which asyncio would complain."""
    found = asyncio.ensure_future(call)
    found.add_done_callback(lambda late: late.cancelled() or late.exception())
    return found
