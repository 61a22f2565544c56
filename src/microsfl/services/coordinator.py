"""The coordinator: the control plane's JSON API. It never sees a tensor and imports no torch.

What the routes below do stands in `director.py` (runs and tasks) and `roster.py` (participants).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from .. import __version__
from ..config import CoordinatorSettings
from ..process import start_logging
from ..records import Records
from ..spec import RunSpec
from . import http
from .api import (
    ErrorJson,
    Health,
    Metrics,
    Participants,
    Poll,
    PollAnswer,
    Registered,
    Registration,
    Report,
    ReportAnswer,
    Rounds,
    RunJson,
    RunName,
    Runs,
    WaitS,
    event_of,
    participant_json,
    round_json,
    run_json,
    task_json,
)
from .data_plane import DataPlane
from .director import Director
from .insist import PATIENCE_S, insist
from .json_body import JsonRoute, on_invalid_request
from .roster import CLIENT, SPLIT_SERVER

ROLE = "coordinator"

InPath = Annotated[RunName, Path(description="The run's name.")]

router = APIRouter(
    prefix="/api",
    route_class=JsonRoute,
    responses={
        "4XX": {"model": ErrorJson, "description": "The request is wrong."},
        "5XX": {"model": ErrorJson, "description": "Something behind the coordinator failed; try again later."},
    },
)


def create_app(
    records: Records,
    clock: Callable[[], float] = time.time,
    data_plane: DataPlane | None = None,
    patience_s: float = PATIENCE_S,
) -> FastAPI:
    """The coordinator as an ASGI app; `app.state.director.stop` answers the open long polls.

    `patience_s` is how long it goes on trying to write to a database that is away.

    Raises:
        StoreCorrupt, StoreUnavailable: when the records cannot be read.
    """
    director = Director(records, clock, data_plane or DataPlane(), patience_s)

    handlers: dict[Any, Any] = {**http.exception_handlers, RequestValidationError: on_invalid_request}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        director.begin()
        yield
        await director.close()

    app = FastAPI(
        title="microsfl coordinator",
        version=__version__,
        description="Participants, runs, rounds and metrics of split federated learning. No tensor comes here.",
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers=handlers,
    )
    app.state.director = director
    app.include_router(router)
    return app


def main(settings: CoordinatorSettings) -> None:
    """Run the coordinator until it is told to end. A database that is not up yet is waited for.

    Raises:
        PortInUse: when the address to listen on cannot be had.
        InvalidSetting, StoreNotWritable, StoreUnavailable, StoreCorrupt: when the records cannot be used.
    """
    start_logging(ROLE, settings.log_level)
    records = asyncio.run(insist(partial(Records, settings.records_url)))
    try:
        app = create_app(records)
        http.serve(app, http.listen(settings), role=ROLE, on_stop=app.state.director.stop)
    finally:
        records.close()


def director_of(request: Request) -> Director:
    director: Director = request.app.state.director
    return director


@router.get("/health", tags=["service"], summary="Is the coordinator there?")
async def health() -> Health:
    return Health(version=__version__)


@router.post("/participants", tags=["participants"], summary="Register, or say that one is still there")
async def register(request: Request, registration: Registration) -> Registered:
    director = director_of(request)
    participant = director.roster.register(registration.id, registration.role, registration.address, registration.info)
    if registration.role == CLIENT:
        await director.offer_clients()
    roster = director.roster
    return Registered(
        **vars(participant_json(participant, alive=True)),
        split_servers=roster.servers(SPLIT_SERVER),
        fed_server=roster.fed_server(),
    )


@router.get("/participants", tags=["participants"], summary="Everybody who ever registered")
async def participants(request: Request) -> Participants:
    roster = director_of(request).roster
    return Participants(participants=[participant_json(one, roster.alive(one.id)) for one in roster.all()])


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
    run, created = await director_of(request).create(RunSpec.parse(spec))
    if not created:
        response.status_code = 200
    return run_json(run)


@router.get("/runs", tags=["runs"], summary="All runs, oldest first")
async def runs(request: Request) -> Runs:
    return Runs(runs=[run_json(run) for run in director_of(request).runs()])


@router.get("/runs/{run}", tags=["runs"], summary="A run, now or at its next change")
async def get_run(
    request: Request,
    run: InPath,
    after: Annotated[int | None, Query(ge=0, description="Answer once the revision is above this.")] = None,
    wait_s: Annotated[WaitS, Query()] = 0,
) -> RunJson:
    director = director_of(request)
    return run_json(director.run(run) if after is None else await director.watch(run, after, wait_s))


@router.post("/runs/{run}/start", tags=["runs"], summary="Begin as soon as there are enough clients")
async def start_run(request: Request, run: InPath) -> RunJson:
    return run_json(await director_of(request).start(run))


@router.post("/runs/{run}/stop", tags=["runs"], summary="End a run before its last round")
async def stop_run(request: Request, run: InPath) -> RunJson:
    return run_json(await director_of(request).stop_run(run))


@router.post("/runs/{run}/resume", tags=["runs"], summary="Go on with a run that failed or was stopped")
async def resume_run(request: Request, run: InPath) -> RunJson:
    return run_json(await director_of(request).resume_run(run))


@router.get("/runs/{run}/metrics", tags=["results"], summary="What each client reported of each round")
async def metrics(request: Request, run: InPath) -> Metrics:
    return Metrics.model_validate({"metrics": await director_of(request).metrics(run)})


@router.get("/runs/{run}/rounds", tags=["results"], summary="The rounds with their versions and results")
async def rounds(request: Request, run: InPath) -> Rounds:
    return Rounds(rounds=[round_json(row) for row in director_of(request).run(run).rounds.values()])


@router.post("/tasks/poll", tags=["clients"], summary="The open tasks of some clients, now or as soon as there is one")
async def poll(request: Request, poll: Poll) -> PollAnswer:
    director = director_of(request)
    tasks = await director.poll(list(dict.fromkeys(poll.clients)), poll.wait_s)
    return PollAnswer(
        tasks=[task_json(run, task) for run, task in tasks],
        split_servers=director.roster.servers(SPLIT_SERVER),
        fed_server=director.roster.fed_server(),
    )


@router.post("/runs/{run}/reports", tags=["clients"], summary="A client's result of a task, or why there is none")
async def report(request: Request, run: InPath, report: Report) -> ReportAnswer:
    row = report.metrics.row() if report.metrics else {}
    return ReportAnswer(accepted=await director_of(request).report(run, report.client, event_of(report), row))
