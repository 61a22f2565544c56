"""A split server in this process, behind the protocol and the bounds that a process of its own has."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import urllib3
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from microsfl.config import ServerSettings, SplitServerSettings
from microsfl.services import http, split_server
from microsfl.services.callers import Bounds
from microsfl.services.connections import Config, Connections
from microsfl.services.replica import create_app
from microsfl.spec import RunSpec
from microsfl.store.objects import ObjectStore, open_store
from tests.world import ALLOWED


@dataclass
class Inside:
    """abandoned: set when an answer of `GET /v1/large` was not read to its end."""

    port: int
    store: ObjectStore
    abandoned: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def contents(self) -> dict[str, bytes]:
        return {key: self.store.get(key) for key in self.store.list("runs")}

    def health(self) -> int:
        return urllib3.request("GET", f"{self.url}/v1/health", retries=False, timeout=20).status


class ReadyServer(http.Server):
    ready: threading.Event

    async def startup(self, *arguments: Any, **options: Any) -> None:
        await super().startup(*arguments, **options)
        self.ready.set()


@contextlib.contextmanager
def inside(
    spec: RunSpec, bounds: Bounds | None = None, max_body_bytes: int = 200_000, **limits: int
) -> Iterator[Inside]:
    """The server with a run. limits: of `Connections`."""
    store = open_store("memory://")
    replica = split_server.create_replica(SplitServerSettings(store_url="memory://", allow_models=ALLOWED), store)
    replica.calls["/v1/runs"]({"spec": spec.model_dump(mode="json")})
    sock = http.listen(ServerSettings())
    live = Inside(sock.getsockname()[1], store)
    app: Starlette = create_app(replica, max_body_bytes, None, bounds)

    async def large(_: Request) -> Response:
        return _Watched(bytes(50_000_000), live.abandoned)

    app.router.routes.append(Route("/v1/large", large))
    bounded = Connections(**{"most": 4000, "each": 4000, **limits})
    config = Config(app, bounded, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = ReadyServer(config, "test", live.url, None)
    server.ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])))
    thread.start()
    try:
        assert server.ready.wait(20)
        yield live
    finally:
        server.should_exit = True
        thread.join(20)


class _Watched(Response):
    """More than a connection holds; sets `event` when that has gone before all of it was written."""

    def __init__(self, content: bytes, event: threading.Event) -> None:
        super().__init__()
        self.content, self.event = content, event

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2):  # the second one waits for the first
            await send({"type": "http.response.body", "body": self.content, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.event.set()
