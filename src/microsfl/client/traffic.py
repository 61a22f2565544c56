"""What a client's requests to the split servers, or to the fed server, move and how long they take."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from ..wire.timing import HEADER, PHASES, read_timing

# Servers that are told apart in a task; of further ones only the sum is kept. It bounds what is reported.
SERVERS_LIMIT = 32
# Where they are counted among the sums of a server.
_OUTCOMES, _FAILOVERS = {"hit": 6, "miss": 7}, 8


class Traffic:
    """All requests to one kind of server, counted over all threads of one client.

    up, down: bytes of request and answer bodies since the beginning.

    The seconds are those since `begin`, as sums over requests, of which several may be under way at a time. Of each
    request: "encode" and "decode" here, "server" between its arrival there and the answer, as far as the answer says
    so, and "wire" for the rest, tries that failed included.
    """

    def __init__(self, up: int = 0, down: int = 0) -> None:
        self.up, self.down = up, down
        self._lock = threading.Lock()
        self.begin()

    def begin(self) -> None:
        """Count the seconds from 0 on."""
        with self._lock:
            self._requests = 0
            self._encode = self._wire = self._server = self._decode = 0.0
            # Of each server by id: requests, the seconds of each phase, backwards that found their graph or did not.
            self._servers: dict[str, list[float]] = {}

    def add(
        self,
        up: int,
        down: int,
        headers: Mapping[str, str],
        asked_s: float,
        *,
        encode_s: float = 0.0,
        decode_s: float = 0.0,
        failover: bool = False,
    ) -> None:
        """Count a request. headers: of its answer. asked_s: from when it was ready to be sent until that was here.
        failover: whether another server was asked first."""
        timing = read_timing(headers.get(HEADER))
        there_s = 0.0 if timing is None else timing.seconds
        with self._lock:
            self.up += up
            self.down += down
            self._requests += 1
            self._encode += encode_s
            self._decode += decode_s
            self._wire += asked_s
            if timing is None or there_s > asked_s:  # a server cannot have had it for longer than that
                return
            self._wire -= there_s
            self._server += there_s
            sums = self._sums(timing.server or "unnamed")
            sums[0] += 1
            sums[1] += timing.queue
            sums[2] += timing.decode
            sums[3] += timing.compute
            sums[4] += timing.store
            sums[5] += timing.encode
            if timing.graph:
                sums[_OUTCOMES[timing.graph]] += 1
            sums[_FAILOVERS] += failover

    def spent(self) -> dict[str, float]:
        """Seconds by "encode", "wire", "server" and "decode", and by "<server>/<phase>"; the counts "requests",
        "<server>/requests", "<server>/hits" and "<server>/misses", and "<server>/failovers" where there were any.
        Nothing when there was no request."""
        with self._lock:
            if not self._requests:
                return {}
            found = {
                "requests": float(self._requests),
                "encode": self._encode,
                "wire": self._wire,
                "server": self._server,
                "decode": self._decode,
            }
            for server, sums in self._servers.items():
                names = ("requests", *PHASES, "hits", "misses")
                found |= {f"{server}/{name}": value for name, value in zip(names, sums, strict=False)}
                if sums[_FAILOVERS]:
                    found[f"{server}/failovers"] = sums[_FAILOVERS]
            return found

    def _sums(self, server: str) -> list[float]:
        if server not in self._servers and len(self._servers) >= SERVERS_LIMIT:
            server = "others"
        return self._servers.setdefault(server, [0.0] * (_FAILOVERS + 1))
