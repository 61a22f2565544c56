"""The coordinator: the control plane's JSON API. It never sees a tensor and imports no torch.

What the routes below do stands in `director.py` (runs and tasks) and `roster.py` (participants).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.types import Lifespan

from .. import __version__
from ..config import CoordinatorSettings
from ..errors import Forbidden
from ..process import start_logging
from ..records import Entry, Records
from ..spec import RunSpec
from ..trust.tls import Inbound, Outbound
from . import admission, for_people, http, pages, scale_routes, trail_route
from .api import (
    Count,
    Health,
    Metrics,
    Poll,
    PollAnswer,
    Ready,
    Registered,
    Registration,
    ReportAnswer,
    Rounds,
    RunJson,
    Runs,
    WaitS,
    participant_json,
    round_json,
    run_json,
    task_json,
)
from .at_hand import RESPONSES, AtHand, InPath, at_hand, director_of
from .callers import Admission, Bounds, Callers
from .connections import connections_of
from .coordinator_endpoints import ENDPOINTS, SECRETS_AT
from .coordinator_points import points
from .data_plane import DataPlane
from .director import Director
from .gate import EVERYBODY, Gate, caller_of, check_still_admitted, without_scope
from .identities import Identities, federation_of, trust_of
from .insist import PATIENCE_S, insist
from .json_body import JsonRoute, QuickRoute, Shortcut, on_invalid_request
from .meter import Meter, Requests, metrics_route
from .need import in_need
from .origin import SameOrigin
from .overview import View
from .readiness import Readiness
from .refusals import Refusals, Watch
from .reports import Report, event_of
from .resolver import Resolver
from .roster import CLIENT, SPLIT_SERVER
from .scale import Scale
from .spent import Profile, profile_of

ROLE = "coordinator"
THREADS = 32

ROUTES = (scale_routes, for_people, admission, trail_route, pages)

# What each client asks every few seconds.
quick = APIRouter(prefix="/api", route_class=QuickRoute, responses=RESPONSES)
router = APIRouter(prefix="/api", route_class=JsonRoute, responses=RESPONSES)


def create_app(
    records: Records,
    clock: Callable[[], float] = time.time,
    data_plane: DataPlane | None = None,
    patience_s: float = PATIENCE_S,
    resolver: Resolver | None = None,
    identities: Identities | None = None,
    bounds: Bounds | None = None,
) -> FastAPI:
    """The coordinator as an ASGI app; `app.state.director.stop` answers the open long polls.

    `patience_s` is how long it goes on trying to write to a database that is away; `resolver` checks what is filled in;
    `identities` are those who may take part: without, everybody may do everything. `bounds` are those of requests.

    Raises:
        StoreCorrupt, StoreUnavailable: when the records cannot be read.
    """
    plane = data_plane or DataPlane()
    director = Director(records, clock, plane, patience_s)
    if identities is not None:
        plane.token, director.invited = identities.own_token, identities.invited
        identities.note = lambda entry: refusals.also(entry)
    handlers: dict[Any, Any] = {**http.exception_handlers, RequestValidationError: on_invalid_request}
    requests, refusals = Requests(lambda: app.routes), Refusals(records.trail, clock)
    refusals.also(started(clock(), identities))
    callers = Callers(bounds or Bounds.of(CoordinatorSettings()))
    app = FastAPI(
        routes=[metrics_route(lambda: (*points(director, records, plane, scale), *requests.points()))],
        title="microsfl coordinator",
        version=__version__,
        description="Participants, runs, rounds and metrics of split federated learning. No tensor comes here.",
        redoc_url=None,
        lifespan=_lifespan(director, refusals),
        exception_handlers=handlers,
    )
    app.state.director = director
    view, scale = View(director, clock()), Scale(lambda: in_need(director.runs(), director.wishes), clock)
    app.state.at_hand = AtHand(
        director, plane, view, resolver or Resolver(), refusals, scale, Readiness(records, clock), identities
    )
    app.add_middleware(Shortcut, routes=quick.routes, handlers=handlers)
    _add_gate(app, identities, callers)
    app.add_middleware(SameOrigin)
    app.add_middleware(Watch, refusals=refusals, requests=requests)
    app.add_middleware(Meter, requests=requests)  # around all of them
    for one in (quick, router, *(module.router for module in ROUTES)):
        app.include_router(one)
    if missing := without_scope(app.routes, ENDPOINTS):
        raise ValueError(f"endpoints without a scope: {missing}")
    return app


def _lifespan(director: Director, refusals: Refusals) -> Lifespan[FastAPI]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Calls of the data plane take minutes; on a machine of few cores they would leave the records no thread.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, ROLE))
        director.begin()
        keeping = asyncio.create_task(refusals.keep())
        yield
        keeping.cancel()
        await director.close()
        await refusals.flush()

    return lifespan


def started(at: float, identities: Identities | None) -> Entry:
    """With which keys: they may have been changed while there was no coordinator."""
    keys = None if identities is None else list(identities.verifier.kids)
    return Entry(at, ROLE, "coordinator started", ROLE, {"version": __version__, "keys": keys})


def _add_gate(app: FastAPI, identities: Identities | None, callers: Callers) -> None:
    app.add_middleware(Admission, callers=callers)
    if identities is not None:
        app.add_middleware(
            Gate,
            verifier=identities.verifier,
            endpoints=ENDPOINTS,
            routes=lambda: app.routes,
            cookies=True,
            hold_back=callers.hold_back,
            by_secret=dict.fromkeys(SECRETS_AT, identities.caller_by),
        )


def main(settings: CoordinatorSettings) -> None:
    """Run the coordinator until it is told to end. A database that is not up yet is waited for.

    Raises:
        PortInUse: when the address to listen on cannot be had.
        InvalidSetting: when a file of its certificates is wrong.
        InvalidSetting, StoreNotWritable, StoreUnavailable, StoreCorrupt: when the records cannot be used.
    """
    start_logging(ROLE, settings.log_level)
    inbound, plane = Inbound.of(settings), DataPlane(outbound=Outbound.of(settings))
    records = asyncio.run(insist(partial(Records, settings.records_url)))
    try:
        sock = http.listen(settings)
        living = federation_of(settings, sock.getsockname()[1])
        identities = None if living is None else Identities(records, living)
        resolver = Resolver(settings.allow_models, settings.allow_datasets)
        app = create_app(
            records, data_plane=plane, resolver=resolver, identities=identities, bounds=Bounds.of(settings)
        )
        roster = app.state.director.roster
        roster.told_split, roster.told_fed = settings.split_servers, settings.fed_server
        stop, open_ones = app.state.director.stop, connections_of(settings)
        http.serve(app, sock, open_ones, role=ROLE, on_stop=stop, inbound=inbound)
    finally:
        records.close()


@quick.post("/tasks/poll", tags=["clients"], summary="The open tasks of some clients, now or as soon as there is one")
async def poll(request: Request, poll: Poll) -> PollAnswer:
    director, caller = director_of(request), caller_of(request)
    for client in poll.clients:
        caller.must_be(client)
    in_hand = [(one.run, one.task()) for one in poll.in_hand]
    tasks = await director.poll(list(dict.fromkeys(poll.clients)), poll.wait_s, in_hand)
    check_still_admitted(request)
    return PollAnswer(
        tasks=[task_json(run, task) for run, task in tasks],
        **director.roster.told(),
    )


@quick.post("/participants", tags=["participants"], summary="Register, or say that one is still there")
async def register(request: Request, registration: Registration) -> Registered:
    director, caller = director_of(request), caller_of(request)
    caller.must_be(registration.id)
    if caller.acts_as != EVERYBODY and caller.role != registration.role:
        raise Forbidden(f"'{caller.id}' is a {caller.role}, and may not register as a {registration.role}.")
    participant = director.roster.register(registration.id, registration.role, registration.address, registration.info)
    if registration.role == CLIENT:
        await director.offer_clients()
    if registration.role == SPLIT_SERVER:
        at_hand(request).scale.heard(registration.id, registration.info)
    return Registered(
        **vars(participant_json(participant, alive=True)),
        trust=trust_of(at_hand(request).identities),
        **director.roster.told(),
    )


@quick.post("/runs/{run}/reports", tags=["clients"], summary="A client's result of a task, or why there is none")
async def report(request: Request, run: InPath, report: Report) -> ReportAnswer:
    director, caller = director_of(request), caller_of(request)
    caller.must_be(report.client)
    row = report.metrics.row() if report.metrics else {}
    return ReportAnswer(accepted=await director.report(run, report.client, event_of(report), row, caller.id))


@router.get("/health", tags=["service"], summary="Is the coordinator there?")
async def health() -> Health:
    return Health(version=__version__)


@router.get("/ready", tags=["service"], summary="Can it work?", responses={503: {"description": "not now, and why"}})
async def ready(request: Request, response: Response) -> Ready:
    problem = await at_hand(request).readiness.problem()
    response.status_code = 503 if problem else 200
    return Ready(status=problem or "ready")


@router.post(
    "/runs",
    status_code=201,
    tags=["runs"],
    summary="Create a run from its specification",
    response_description="The new run (or, with status 200, the one that has this specification already).",
)
async def create_run(
    request: Request,
    response: Response,
    spec: Annotated[
        dict[str, Any],
        Body(description="A resolved run specification.", examples=[RunSpec().model_dump(mode="json")]),
    ],
) -> RunJson:
    here, parsed = at_hand(request), RunSpec.parse(spec)
    caller = caller_of(request)
    caller.must_be_in(parsed.run.name)
    run, created = await here.director.create(parsed, caller.id)
    counts = here.resolver.class_counts(run.spec) if created else None
    if counts is not None:
        await here.director.keep_class_counts(run.name, counts)
    if not created:
        response.status_code = 200
    return run_json(run)


@router.get("/runs", tags=["runs"], summary="All runs, oldest first")
async def runs(request: Request) -> Runs:
    caller = caller_of(request)
    return Runs(runs=[run_json(run) for run in director_of(request).runs() if caller.is_in(run.name)])


@router.get("/runs/{run}", tags=["runs"], summary="A run, now or at its next change")
async def get_run(
    request: Request,
    run: InPath,
    after: Annotated[int | None, Query(ge=0, description="Answer once the revision is above this.")] = None,
    wait_s: Annotated[WaitS, Query()] = 0,
    history_from: Annotated[int, Query(ge=0, description="Leave out what the history has of rounds before it.")] = 0,
) -> RunJson:
    director = director_of(request)
    found = director.run(run) if after is None else await director.watch(run, after, wait_s)
    check_still_admitted(request)
    return run_json(found, history_from)


@router.post("/runs/{run}/start", tags=["runs"], summary="Begin as soon as there are enough clients")
async def start_run(request: Request, run: InPath) -> RunJson:
    return run_json(await director_of(request).start(run, caller_of(request).id))


@router.post("/runs/{run}/stop", tags=["runs"], summary="End a run before its last round")
async def stop_run(request: Request, run: InPath) -> RunJson:
    return run_json(await director_of(request).stop_run(run, caller_of(request).id))


@router.post("/runs/{run}/resume", tags=["runs"], summary="Go on with a run that failed or was stopped")
async def resume_run(request: Request, run: InPath) -> RunJson:
    return run_json(await director_of(request).resume_run(run, caller_of(request).id))


@router.get("/runs/{run}/metrics", tags=["results"], summary="What each client reported of each round")
async def metrics(request: Request, run: InPath) -> Metrics:
    return Metrics.model_validate({"metrics": await director_of(request).metrics(run)})


@router.get("/runs/{run}/profile", tags=["results"], summary="Where the time of clients and servers went")
async def profile(
    request: Request,
    run: InPath,
    from_round: Annotated[Count, Query(strict=False, description="Leave out what there is of rounds before it.")] = 0,
) -> Profile:
    director = director_of(request)
    rounds = [row for number, row in director.run(run).rounds.items() if number >= from_round]
    return profile_of(rounds, await director.metrics_between(run, from_round, director.run(run).state.rounds))


@router.get("/runs/{run}/rounds", tags=["results"], summary="The rounds with their versions and results")
async def rounds(request: Request, run: InPath) -> Rounds:
    return Rounds(rounds=[round_json(row) for row in director_of(request).run(run).rounds.values()])
