"""Long polls: whoever waits for one of some topics is woken when it rings. Costs no thread and no database."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable

ANY_RUN = "runs"


def run_topic(run: str) -> str:
    return f"run/{run}"


def client_topic(client: str) -> str:
    return f"client/{client}"


class Bells:
    """One event loop's bells. A caller who awaits anything between looking and waiting may miss a ring."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.closed = False

    async def wait(self, topics: Iterable[str], timeout_s: float) -> bool:
        """Until one of `topics` rings, which is True, or `timeout_s` have passed, or the bells are closed."""
        if self.closed or timeout_s <= 0:
            return False
        woken, topics = asyncio.Event(), set(topics)
        for topic in topics:
            self._waiting[topic].add(woken)
        try:
            async with asyncio.timeout(timeout_s):
                await woken.wait()
        except TimeoutError:
            return False
        finally:
            for topic in topics:
                self._leave(topic, woken)
        return not self.closed

    def ring(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for woken in self._waiting.get(topic, ()):
                woken.set()

    def close(self) -> None:
        """Wake everybody, and let nobody wait any more."""
        self.closed = True
        self.ring(self._waiting)

    def _leave(self, topic: str, woken: asyncio.Event) -> None:
        self._waiting[topic].discard(woken)
        if not self._waiting[topic]:
            del self._waiting[topic]
