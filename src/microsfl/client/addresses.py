"""The split servers behind what a client was told: URLs, or names that stand for all their addresses.

A name with several addresses is what a headless service of Kubernetes has, or DNS with a record for each host: by it,
replicas join and leave. Such an address is written `https://name:port#10.0.0.5`: connect there, and expect a
certificate of the name.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..config import DNS

LOOK_UP_EVERY_S = 5.0

LookUp = Callable[[str, int], Sequence[str]]


def look_up(name: str, port: int) -> list[str]:
    """The IP addresses of a name. Raises OSError."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


@dataclass
class Addresses:
    """URLs to ask, for what is told at the moment. When a name cannot be looked up, its last addresses stay.

    For any number of threads; one at a time looks up, and the others go on with what is known.
    """

    told: Callable[[], Sequence[str]]
    look_up: LookUp = look_up
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[list[str], float]] = field(default_factory=dict)
    _looking: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> list[str]:
        return [url for one in self.told() for url in (self._all_of(one) if one.startswith(DNS) else [one])]

    def _all_of(self, one: str) -> list[str]:
        known, at = self._known.get(one, ([], -LOOK_UP_EVERY_S))
        if self.clock() - at < LOOK_UP_EVERY_S or not self._looking.acquire(blocking=not known):
            return known
        try:
            url = one.removeprefix(DNS)
            parts = urlsplit(url)
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            with suppress(OSError):
                known = [f"{url}#{address}" for address in self.look_up(parts.hostname or "", port)]
            self._known[one] = known, self.clock()
            return known
        finally:
            self._looking.release()
