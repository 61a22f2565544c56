"""What the three services share: one JSON error shape, bounded bodies, and a server that says when it is ready."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from ..config import ServerSettings, url_of
from ..errors import (
    InputError,
    InvalidSetting,
    MessageTooLarge,
    MessageTooSlow,
    MicrosflError,
    Overloaded,
    PortInUse,
    TooManyRequests,
)
from ..process import announce, event
from ..trust.tls import Inbound
from .connections import Config, Connections

GRACEFUL_STOP_S = 3
GOODBYE_S = 0.3
BODY_S = 60.0
# A body comes at 16 kB/s or more, after some seconds in which it need not.
FIRST_BODY_S = 10.0
LEAST_BYTES_PER_S = 16_000
PEEKED_BYTES = 65_536
JSON_LIMIT_BYTES = 1_000_000
MANY_FILES = 65_536
RENEWED_EVERY_TICKS = 20  # of uvicorn, 0.1 s each: how often the files of the certificate are looked at

# The beginning of a body, at least `PEEKED_BYTES` -> the most that it may have.
Peek = Callable[[bytearray], int]
Handler = Callable[[Request, Exception], Awaitable[Response]]
# Whether there is a hurry -> waits until the process may end.
Drain = Callable[[Callable[[], bool]], Awaitable[None]]


async def on_microsfl_error(_: Request, error: Exception) -> Response:
    """A purposeful error with its own status and sentence."""
    assert isinstance(error, MicrosflError)
    if not isinstance(error, InputError | TooManyRequests | Overloaded):  # those are told of once for many
        event("request failed", logging.ERROR, code=error.code, message=str(error))
    headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s else None
    return JSONResponse(error.to_wire(), error.status, headers)


async def on_http_error(_: Request, error: Exception) -> Response:
    """An unknown path or method, in the same shape."""
    assert isinstance(error, HTTPException)
    code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return JSONResponse({"error": {"code": code, "message": str(error.detail)}}, error.status_code)


async def on_disconnect(_: Request, __: Exception) -> Response:
    """Nobody is left to read this; the status is for the log."""
    return Response(status_code=499)


async def on_bug(request: Request, error: Exception) -> Response:
    """The outermost net: the caller learns nothing of the inside, the log gets all of it."""
    event("request failed", logging.ERROR, path=request.url.path, error=repr(error))
    return JSONResponse(MicrosflError().to_wire(), 500)


exception_handlers: dict[Any, Handler] = {
    MicrosflError: on_microsfl_error,
    HTTPException: on_http_error,
    ClientDisconnect: on_disconnect,
    Exception: on_bug,
}


async def read_body(request: Request, limit_bytes: int, peek: Peek | None = None) -> bytearray:
    """The request's body. peek: tells from the beginning of a large one how large it may be.

    Raises:
        MessageTooLarge: as soon as more than `limit_bytes` are declared or have come; the rest is not read.
        MessageTooSlow: when it has not come after `BODY_S` seconds, or comes slower than `LEAST_BYTES_PER_S`: a client
            that vanished must not hold a place.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(FIRST_BODY_S) as deadline:
            return await _read(request, limit_bytes, body, deadline, peek)
    except TimeoutError:
        raise MessageTooSlow(
            f"Of the body, {len(body)} bytes came in time: it takes {LEAST_BYTES_PER_S} a second after the first "
            f"{FIRST_BODY_S:g} seconds, and all of it within {BODY_S:g}."
        ) from None


async def _read(
    request: Request, limit_bytes: int, body: bytearray, deadline: asyncio.Timeout, peek: Peek | None
) -> bytearray:
    declared = request.headers.get("content-length", "0")
    began = asyncio.get_running_loop().time()
    if not declared.isdigit() or int(declared) > limit_bytes:
        raise MessageTooLarge(f"The body is {declared} bytes; this server takes at most {limit_bytes}.")
    async for chunk in request.stream():
        body += chunk
        if peek is not None and len(body) > PEEKED_BYTES:
            limit_bytes, peek = min(limit_bytes, peek(body)), None
        if len(body) > limit_bytes:
            raise MessageTooLarge(f"The body is over {limit_bytes} bytes, the most that this server takes.")
        deadline.reschedule(began + min(BODY_S, FIRST_BODY_S + len(body) / LEAST_BYTES_PER_S))
    return body


async def read_json(request: Request) -> dict[str, Any]:
    """The request's body as a JSON object.

    Raises:
        InputError: when it is not one.
    """
    try:
        value = json.loads(await read_body(request, JSON_LIMIT_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputError(f"The body is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InputError("The body is not a JSON object.")
    return value


def listen(settings: ServerSettings) -> socket.socket:
    """A listening socket on the settings' address.

    Raises:
        PortInUse: when it is taken or cannot be had, naming the flag that changes it.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; left on, it costs 40 ms a small answer.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise PortInUse(
            f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}). Choose another with --port, "
            "or --port 0 for a free one."
        ) from None
    return sock


def allow_connections() -> None:
    """Let this process have many connections open: 500 clients with two each reach the usual limit of 1,024 files."""
    try:
        import resource
    except ImportError:  # there is no such limit on this system
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Server(uvicorn.Server):
    """uvicorn on a socket that is already bound, with a ready line, and a word to the app when the end is asked for."""

    def __init__(
        self,
        config: uvicorn.Config,
        role: str,
        address: str,
        on_stop: Callable[[], None] | None,
        inbound: Inbound | None = None,
        drain: Drain | None = None,
    ) -> None:
        super().__init__(config)
        self.role, self.address, self.on_stop, self.inbound = role, address, on_stop, inbound
        self.drain, self.hurried = drain, False
        if inbound is not None:
            config.load()
            config.ssl = inbound.context

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            announce(self.role, f"at {self.address}")
            event("ready", address=self.address)

    async def on_tick(self, counter: int) -> bool:
        if self.inbound is not None and counter % RENEWED_EVERY_TICKS == 0:
            try:
                if self.inbound.renew():
                    event("certificate renewed")
            except InvalidSetting as error:
                event("certificate not renewed", logging.WARNING, reason=str(error))
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.hurried = self.should_exit  # asked for the second time
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        event("stopping")
        if self.drain is not None:
            await self.drain(lambda: self.hurried)
        if self.on_stop is not None:
            self.on_stop()
        if self.inbound is not None:
            asyncio.get_running_loop().call_later(GOODBYE_S, self._hang_up)
        await super().shutdown(sockets)

    def _hang_up(self) -> None:
        """A TLS connection closes when the other side says goodbye, too. Whoever keeps one for later does not."""
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None and transport.is_closing():
                transport.abort()


def serve(
    app: ASGIApp,
    sock: socket.socket,
    connections: Connections,
    *,
    role: str,
    on_stop: Callable[[], None] | None = None,
    inbound: Inbound | None = None,
    drain: Drain | None = None,
) -> None:
    """Serve `app` on `sock` until SIGTERM or SIGINT; over TLS where there is an `inbound`. connections: bounds those
    that it opens.

    `on_stop` is called on the event loop when the end was asked for, before open requests are waited for: an app with
    long polls answers them there. `drain` is waited for before that, and all is answered meanwhile; it is told whether
    the end was asked for a second time.
    """
    host, port = sock.getsockname()[:2]
    config = Config(
        app,
        connections,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACEFUL_STOP_S,
        timeout_keep_alive=75,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal once more when it has stopped; without this a clean stop would exit with its number.
        signal.signal(number, lambda *_: None)
    address = url_of("http" if inbound is None else "https", host, port)
    server = Server(config, role, address, on_stop, inbound, drain)
    allow_connections()
    # What is loaded by now stays. To look through it for garbage again and again would stop all answers for 0.1 s.
    gc.freeze()
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve([sock]))
