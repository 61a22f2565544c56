"""What split server and fed server share: the tensor endpoints, one compute thread, and the word to the coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Lifespan

from .. import __version__
from ..errors import Forbidden, InputError, MicrosflError
from ..spec import check_id
from ..telemetry import traces
from ..telemetry.exposition import Point
from ..trust.scopes import Scope
from ..trust.tokens import Caller, Verifier
from ..wire.messages import Message
from ..wire.tensors import Buffer, fields_of
from ..wire.timing import HEADER, Timing
from .callers import Admission, Bounds, Callers, check_there, line_of
from .gate import Endpoints, Gate, caller_of, without_scope
from .http import exception_handlers, read_body, read_json
from .leaving import Farewell, Leaving
from .load import Load
from .meter import Meter, Requests, metrics_route
from .replica_endpoints import BODY
from .replica_points import points
from .stopwatch import Stopwatch
from .tracing import Tracing
from .turns import Line, Places, Turns

BINARY = "application/octet-stream"
# Bodies in memory at a time: further requests wait in the kernel's socket buffers, not in this process. One caller has
# half of them at most.
OPEN_BODIES = 16
REFUSED = (401, 403, 422)

Json = dict[str, Any]
Result = TypeVar("Result")


@dataclass
class Replica:
    """A stateless service as a table of functions; all of them run on one compute thread, one at a time.

    messages: path -> (type of the request, function to its answer). calls: path -> function from JSON to JSON.
    weights: (run, version or None for the newest) -> (version, weights file). status: run -> newest version and open
    round. update, handed_on: (run, round, client) -> what the client uploaded, without weights or the weights alone.
    commits: (run, version) -> the commits that follow on it; it may be called from any thread.
    info: figures for the coordinator. stopwatch: measures what goes through `answer` and `call`. points: the metrics
    that it has besides those of every replica. tracing: where units are followed. endpoints: what each asks of its
    caller. is_managed: whether the coordinator directs a run. refused: how many requests were. largest: bytes that a
    message of a run has at most, where that is known; it may be called from any thread. load: requests that are here.
    leaving: whether it is about to end.
    """

    role: str
    messages: Mapping[str, tuple[type[Message], Callable[[Any], Message]]]
    calls: Mapping[str, Callable[[Json], Json]]
    weights: Callable[[str, int | None], tuple[int, bytes]]
    status: Callable[[str], Json]
    info: Callable[[], Json]
    stopwatch: Stopwatch
    update: Callable[[str, int, str], bytes] = lambda *_: b""
    handed_on: Callable[[str, int, str], bytes] = lambda *_: b""
    commits: Callable[[str, int], Json] | None = None
    close: Callable[[], None] = lambda: None
    points: Callable[[], Iterable[Point]] = tuple
    tracing: Tracing | None = None
    endpoints: Endpoints = field(default_factory=lambda: BODY)
    is_managed: Callable[[str], bool] = lambda _: True
    refused: Callable[[], int] = lambda: 0
    largest: Callable[[str], int | None] = lambda _: None
    compute: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "compute"))
    load: Load = field(default_factory=Load)
    leaving: Leaving = field(default_factory=Leaving)

    @cached_property
    def turns(self) -> Turns:
        """The compute thread, for requests of many callers."""
        return Turns(self.compute)

    async def called(self, line: Line, function: Callable[..., Result], *arguments: Any) -> tuple[Result, Timing]:
        """`call` on the compute thread, once it is the line's turn."""
        with self.load.one():
            return await self.turns.run(line, self.call, self.stopwatch.clock(), function, *arguments)

    def answer(
        self,
        path: str,
        body: Buffer,
        since: float | None = None,
        parent: str | None = None,
        caller: Caller | None = None,
    ) -> tuple[bytes, Timing]:
        """The answer to one message, bytes in, bytes out, and what it took; see `Stopwatch.begin`.

        parent: the request's header that names the span which asks. caller: who asks; None: somebody who may be anyone.

        Raises:
            Forbidden: when the message is another client's, or of a run that the caller is not invited to.
        """
        kind, function = self.messages[path]
        measured = self.stopwatch.begin(since)
        message = kind.unpack(body)
        measured.decoded()
        if caller is not None:
            check_sender(caller, message)
        try:
            answer = function(message)
        except MicrosflError as error:
            if self.tracing is not None:
                self.tracing.refused(message, path, parent, measured, error)
            raise
        measured.computed()
        content = answer.pack()
        timing = measured.encoded()
        if self.tracing is not None:
            self.tracing.served(message, path, parent, timing)
        return content, timing

    def call(self, since: float | None, function: Callable[..., Result], *arguments: Any) -> tuple[Result, Timing]:
        """What one of the other functions gives, and what it took."""
        measured = self.stopwatch.begin(since)
        result = function(*arguments)
        measured.computed()
        return result, measured.encoded()

    def figures(self) -> Json:
        """Of this process since it started."""
        load_s = round(self.load.seconds, 3)
        return {**self.info(), **self.stopwatch.figures(), "load_s": load_s, "refused": self.refused()}


def check_sender(caller: Caller, message: Message) -> None:
    """Raises Forbidden unless the caller may send it."""
    caller.must_be_in(str(getattr(message, "run")))  # noqa: B009 - every message of the data plane has one
    client = getattr(message, "client", None)  # of a unit or an update; a prediction is nobody's
    if client is not None:
        caller.must_be(client)


def create_app(
    replica: Replica, max_body_bytes: int, verifier: Verifier | None = None, bounds: Bounds | None = None
) -> Starlette:
    """The HTTP shell around a replica.

    verifier: what checks callers; None: everybody may do everything. bounds: of their requests.
    """
    places, callers, run = Places(OPEN_BODIES, OPEN_BODIES // 2), Callers(bounds or Bounds()), replica.turns.run
    checked = verifier is not None

    def peek(body: bytearray) -> int:
        said = fields_of(body)
        largest = replica.largest(str(said.get("run"))) if said else None
        return max_body_bytes if largest is None else largest

    def message_route(path: str) -> Route:
        async def endpoint(request: Request) -> Response:
            asked, line, load = replica.stopwatch.clock(), line_of(request.scope), replica.load
            with load.one():
                async with places.of(line):
                    waited_s = replica.stopwatch.clock() - asked
                    check_there(request.scope)
                    with load.without():
                        body = await read_body(request, max_body_bytes, peek)
                    since = replica.stopwatch.clock() - waited_s  # while the body came, it was still on the wire
                    parent = None if replica.tracing is None else request.headers.get(traces.HEADER)
                    caller = caller_of(request) if checked else None
                    content, timing = await run(line, replica.answer, path, body, since, parent, caller)
            return _binary(content, timing._replace(load=load.now))

        return Route(path, endpoint, methods=["POST"])

    routes = [
        *(message_route(path) for path in replica.messages),
        *(_call_route(replica, path, function, checked=checked) for path, function in replica.calls.items()),
        metrics_route(lambda: (*points(replica.role, replica.stopwatch), *requests.points(), *replica.points())),
        *_reading_routes(replica),
        _ready_route(replica, verifier),
    ]
    if missing := without_scope(routes, replica.endpoints):
        raise ValueError(f"endpoints without a scope: {missing}")
    requests = Requests(lambda: routes)
    replica.refused = lambda: requests.with_status(REFUSED)
    return Starlette(
        routes=routes,
        middleware=_middleware(replica, verifier, routes, requests, callers),
        exception_handlers=exception_handlers,
        lifespan=_lifespan(replica),
    )


def _middleware(
    replica: Replica, verifier: Verifier | None, routes: Sequence[BaseRoute], requests: Requests, callers: Callers
) -> list[Middleware]:
    """Around the routes, the outermost first."""
    gate = Middleware(
        Gate,
        verifier=verifier,
        endpoints=replica.endpoints,
        routes=lambda: routes,
        links=True,
        hold_back=callers.hold_back,
    )
    return [
        Middleware(Farewell, leaving=replica.leaving),
        Middleware(Meter, requests=requests),
        gate,
        Middleware(Admission, callers=callers),
    ]


def _lifespan(replica: Replica) -> Lifespan[Starlette]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        replica.compute.shutdown(wait=True)
        replica.close()

    return lifespan


def _reading_routes(replica: Replica) -> Iterator[Route]:
    """What changes nothing."""

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "role": replica.role, "version": __version__, **replica.figures()})

    async def weights(request: Request) -> Response:
        name, line = check_id(request.path_params["run"], "run"), line_of(request.scope)
        number = _version(request.path_params["version"])
        (version, content), timing = await replica.called(line, replica.weights, name, number)
        as_file = f'attachment; filename="{name}-{replica.role}-{version}.safetensors"'  # for browsers
        return _binary(content, timing, {"x-microsfl-version": str(version), "content-disposition": as_file})

    async def status(request: Request) -> Response:
        name = check_id(request.path_params["run"], "run")
        return JSONResponse(await replica.turns.run(line_of(request.scope), replica.status, name))

    yield Route("/v1/health", health)
    yield Route("/v1/runs/{run}", status)
    yield Route("/v1/runs/{run}/versions/{version}/weights", weights)
    if "/v1/updates" in replica.messages:
        path = "/v1/runs/{run}/rounds/{round}/updates/{client}"
        yield _update_route(replica, path, replica.update, own=True)
        yield _update_route(replica, f"{path}/weights", replica.handed_on)
    if replica.commits is not None:
        yield _commits_route(replica.commits)


def _ready_route(replica: Replica, verifier: Verifier | None) -> Route:
    """For whoever sends requests its way: a load balancer, or an orchestrator's probe."""

    async def ready(_: Request) -> Response:
        if replica.leaving.begun:
            return JSONResponse({"status": "leaving"}, 503)
        if verifier is not None and not verifier.kids:
            return JSONResponse({"status": "without the federation's keys, which its coordinator has"}, 503)
        return JSONResponse({"status": "ready"})

    return Route("/v1/ready", ready)


def _call_route(replica: Replica, path: str, function: Callable[[Json], Json], *, checked: bool) -> Route:
    """checked: callers are known, and of a run that the coordinator directs it alone may call."""

    async def endpoint(request: Request) -> Response:
        message, caller, line = await read_json(request), caller_of(request), line_of(request.scope)
        if checked and not caller.may(Scope.DIRECT):
            run = text_field(message, "run")
            caller.must_be_in(run)
            if await replica.turns.run(line, replica.is_managed, run):
                raise Forbidden(f"Run '{run}' is directed by the coordinator alone.")
        values, timing = await replica.called(line, function, message)
        return JSONResponse(values, headers={HEADER: timing.header()})

    return Route(path, endpoint, methods=["POST"])


def _update_route(
    replica: Replica, path: str, function: Callable[[str, int, str], bytes], *, own: bool = False
) -> Route:
    """own: only the client itself may have it."""

    async def endpoint(request: Request) -> Response:
        run, client = (check_id(request.path_params[name], name) for name in ("run", "client"))
        if own:
            caller_of(request).must_be(client)
        round_ = _number(request.path_params["round"], "Round")
        return _binary(*await replica.called(line_of(request.scope), function, run, round_, client))

    return Route(path, endpoint)


def _commits_route(function: Callable[[str, int], Json]) -> Route:
    """It only reads files, and need not wait for the compute thread."""

    async def endpoint(request: Request) -> Response:
        run = check_id(request.path_params["run"], "run")
        after = _number(request.query_params.get("after", "0"), "Version")
        return JSONResponse(await asyncio.to_thread(function, run, after))

    return Route("/v1/runs/{run}/commits", endpoint)


def text_field(call: Json, name: str, what: str | None = None) -> str:
    """An id in a JSON call. Raises InputError or InvalidId."""
    value = call.get(name)
    if not isinstance(value, str):
        raise InputError(f"'{name}' must be text (got {value!r:.60}).")
    return check_id(value, what or name)


def number_field(call: Json, name: str) -> int:
    """A natural number in a JSON call. Raises InputError."""
    value = call.get(name)
    if type(value) is not int or not 0 <= value <= 10**9:
        raise InputError(f"'{name}' must be a whole number from 0 to 10^9 (got {value!r:.60}).")
    return value


def _binary(content: bytes, timing: Timing, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, media_type=BINARY, headers={HEADER: timing.header(), **(headers or {})})


def _version(text: str) -> int | None:
    return None if text == "newest" else _number(text, "Version")


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise InputError(f"{what} '{text:.40}' is not a number.")
    return int(text)
