"""What a service counts of its HTTP requests, and the endpoint that shows its metrics."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..telemetry.exposition import Exposition, Point
from ..telemetry.histogram import Histogram

PATH = "/metrics"
# A label has few values, whatever is sent: other methods are counted as one, and so are paths that lead nowhere.
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS")
OTHER = "other"


class Counted:
    """Requests of one method and route, on the event loop's thread."""

    __slots__ = ("open", "seconds", "statuses")

    def __init__(self) -> None:
        self.open = 0
        self.seconds = Histogram()
        self.statuses: Counter[int] = Counter()


class Requests:
    """All requests of an app, by method and route.

    routes: the app's, asked at the first request, when all are there.
    """

    def __init__(self, routes: Callable[[], Iterable[BaseRoute]]) -> None:
        self._get_routes = routes
        self._patterns: list[Route | Mount] | None = None
        self._fixed: dict[tuple[str, str], Counted] = {}  # by what is asked for, where no part of the path varies
        self.counted: dict[tuple[str, str], Counted] = {}

    def of(self, method: str, path: str) -> Counted:
        return self._fixed.get((method, path)) or self._look_up(method, path)

    def labels(self, method: str, path: str) -> tuple[str, str]:
        """Method and route, of which there are few, whatever is asked for."""
        if self._patterns is None:
            self._patterns = list(with_paths(self._get_routes()))
        found = next((route.path or "/" for route in self._patterns if route.path_regex.match(path)), OTHER)
        return method if method in METHODS else OTHER, found

    def with_status(self, statuses: Iterable[int]) -> int:
        """How many were answered with one of these."""
        wanted = set(statuses)
        return sum(count for one in self.counted.values() for status, count in one.statuses.items() if status in wanted)

    def _look_up(self, method: str, path: str) -> Counted:
        known, found = self.labels(method, path)
        counted = self.counted.setdefault((known, found), Counted())
        if (known, found) == (method, path):
            self._fixed[method, path] = counted
        return counted

    def points(self) -> Iterator[Point]:
        for (method, path), counted in self.counted.items():
            labels = {"method": method, "path": path}
            yield "microsfl_open_requests", labels, counted.open
            yield "microsfl_request_seconds", labels, counted.seconds
            for status, count in counted.statuses.items():
                yield "microsfl_requests_total", {**labels, "status": str(status)}, count


class Meter:
    """Middleware that counts the requests which pass through it."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        counted = self._requests.of(scope["method"], scope["path"])
        answered = False

        async def watched(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                counted.statuses[message["status"]] += 1
                counted.seconds.observe(perf_counter() - began)
            await send(message)

        counted.open += 1
        try:
            await self._app(scope, receive, watched)
        except Exception:
            if not answered:  # whoever is outside of this says so
                counted.statuses[500] += 1
            raise
        finally:
            counted.open -= 1


def with_paths(routes: Iterable[BaseRoute]) -> Iterator[Route | Mount]:
    for route in routes:
        if isinstance(route, Route | Mount):
            yield route
        else:  # FastAPI keeps a router that was included as one entry; older versions put its routes here
            yield from with_paths(getattr(getattr(route, "original_router", None), "routes", ()))


def metrics_route(points: Callable[[], Iterable[Point]]) -> Route:
    """`GET /metrics`, from what `points` gives on the event loop's thread."""
    exposition = Exposition(points)

    async def metrics(request: Request) -> Response:
        await asyncio.to_thread(lambda: exposition.registry)  # the first one imports
        body, kind = exposition.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": kind})

    return Route(PATH, metrics, methods=["GET"])
