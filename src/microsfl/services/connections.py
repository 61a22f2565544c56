"""Connections of a service: how many are open, whose they are, and how long one may say nothing.

uvicorn waits for ever for a request that has begun and does not go on, and opens as many connections as the system
lets it. Here a request's head has to come within `HEAD_S`, an answer has to be read within `READ_S`, and who has too
many connections loses the one that has been idle longest. A connection is its address's until a request on it shows an
identity; from then on it is that one's.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..config import ServerSettings
from ..errors import Overloaded
from .addresses import ADDRESS, network_of

HEAD_S = 10.0
HEAD_BYTES = 65_536
READ_S = 60.0
REST_S = 60.0  # for the rest of a body after the answer
JOINED_BYTES = 65_536  # an answer's body of up to this size is copied into one piece with its head
PIPELINED = 16  # requests of a connection that wait for the answer to one before them


class Connections:
    """Those of one process. most: in all. each: of one owner. Of one event loop."""

    def __init__(self, most: int, each: int) -> None:
        self.most, self.each = most, each
        self.count = 0
        self._open: defaultdict[str, dict[Connection, None]] = defaultdict(dict)
        self._idle: defaultdict[str, dict[Connection, None]] = defaultdict(dict)  # longest first

    def admit(self, one: Connection) -> bool:
        """Take in a new connection, and let another one go where there are too many. False: it has to go itself."""
        if not self._make_room(one.owner):
            return False
        self.count += 1
        self._open[one.owner][one] = None
        self.idle(one)
        return True

    def move(self, one: Connection, owner: str) -> None:
        """The connection, with a request under way, is another one's than was known so far."""
        if not self._remove(one):
            return
        one.owner = owner
        mine = self._open[owner]
        if len(mine) >= self.each and (oldest := next(iter(self._idle[owner]), None)) is not None:
            self.drop(oldest)
        self._open[owner][one] = None

    def idle(self, one: Connection) -> None:
        self._idle[one.owner][one] = None

    def busy(self, one: Connection) -> None:
        self._idle[one.owner].pop(one, None)

    def gone(self, one: Connection) -> None:
        if self._remove(one):
            self.count -= 1

    def drop(self, one: Connection) -> None:
        """Close it, and do not count it any more."""
        self.gone(one)
        one.transport.abort()

    def _make_room(self, owner: str) -> bool:
        if len(self._open.get(owner, ())) >= self.each:
            oldest = next(iter(self._idle[owner]), None)
            if oldest is not None:
                self.drop(oldest)
            return oldest is not None
        if self.count < self.most:
            return True
        largest = max(self._open, key=lambda name: len(self._open[name]))
        oldest = next(iter(self._idle[largest] or self._open[largest]))
        if oldest.is_idle or len(self._open[largest]) > 2 * len(self._open.get(owner, ())):
            self.drop(oldest)
            return True
        return False

    def _remove(self, one: Connection) -> bool:
        mine = self._open.get(one.owner, {})
        if one not in mine:
            return False
        del mine[one]
        self._idle[one.owner].pop(one, None)
        if not mine:
            del self._open[one.owner]
            self._idle.pop(one.owner, None)
        return True


class Config(uvicorn.Config):
    """uvicorn's, with the bounds of connections."""

    def __init__(self, app: Any, connections: Connections, **options: Any) -> None:
        super().__init__(app, http=Connection, ws="none", **options)
        self.open_connections = connections


def connections_of(settings: ServerSettings) -> Connections:
    return Connections(settings.max_connections, settings.max_connections_per_caller)


class Connection(HttpToolsProtocol):
    """One connection, from uvicorn's parser to its end."""

    config: Config
    owner = ""
    _all: Connections
    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_body = False

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way: none, or none whose head is there."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_closed(self) -> bool:
        return self.transport.is_closing()

    def belongs_to(self, owner: str) -> None:
        """A request on it has shown who this is."""
        if owner != self.owner:
            self._all.move(self, owner)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._all = self.config.open_connections
        self.owner = ADDRESS + (network_of(self.client[0]) if self.client else "-")
        if self._all.admit(self):
            self._timer = self.loop.call_later(HEAD_S, self._end)
        else:
            self._refuse(503, Overloaded("There are as many connections as this server takes.").to_wire())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._all.gone(self)
        self._stop()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.is_idle:
            self._stop()
            self._head_bytes = 0
            return
        if not self._in_body:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(431, {"error": {"code": "http_error", "message": "The request's head is too long."}})
                return
        if self._timer is None:
            self._timer = self.loop.call_later(REST_S if self._in_body else HEAD_S, self._end)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests wait for an answer on this connection")
        self.scope.setdefault("state", {})["connection"] = self

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._all.busy(self)
        super().on_headers_complete()
        self.cycle.transport = Joined(self.transport, self.loop)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.is_idle and not self.transport.is_closing():
            self._all.idle(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(READ_S, self._end)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _refuse(self, status: int, error: dict[str, Any]) -> None:
        self._stop()
        body = json.dumps(error).encode()
        head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}retry-after: 1\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self.transport.abort()


class Joined:
    """Where one answer is written to. Its head waits for the body, until the loop goes on to something else.

    Written apart they are two system calls, and two records of TLS.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head: bytes | None = None
        self._is_begun = False

    def write(self, data: bytes) -> None:
        if not self._is_begun:
            self._is_begun, self._head = True, data
            self._loop.call_soon(self._flush)
            return
        head, self._head = self._head, None
        if head is None:
            self._transport.write(data)
        elif len(data) <= JOINED_BYTES:
            self._transport.write(head + data)
        else:
            self._transport.writelines([head, data])

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._head is not None:
            self._transport.write(self._head)
            self._head = None
