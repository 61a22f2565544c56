"""The part of the coordinator's API that the dashboard reads: what is going on, live, and what a run is made of."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response, StreamingResponse

from ..config import DNS
from ..errors import InvalidSetting, MicrosflError, RunNotFound, VersionNotFound
from ..spec import RunSpec
from ..spec.reference import settings_reference
from ..trust.tokens import Audience
from . import streams
from .api import Count, round_json
from .at_hand import RESPONSES, InPath, at_hand, director_of
from .data_plane import DataPlane
from .director import Director
from .errand import errand
from .gate import caller_of, still_admits
from .json_body import JsonRoute
from .overview import participants_of
from .roster import SPLIT_SERVER
from .shown import (
    ClassCounts,
    Commits,
    Overview,
    Participants,
    PartitionJson,
    SettingJson,
    SettingsJson,
    Specification,
    WeightsJson,
    WeightsLink,
)
from .spent import profile_of

PACK = "microsfl.launch.results_zip:pack"
PACK_WITHIN_S = 120.0
COMMITS_WITHIN_S = 10.0
NEWEST = "{}/v1/runs/{}/versions/newest/weights"

router = APIRouter(prefix="/api", route_class=JsonRoute, responses=RESPONSES)


@router.get("/overview", tags=["dashboard"], summary="All runs in a line each", response_model=Overview)
async def overview(request: Request) -> Response:
    return Response(at_hand(request).view.overview(caller_of(request)), media_type="application/json")


@router.get("/participants", tags=["participants"], summary="Who ever registered; to a client: servers and itself")
async def participants(request: Request) -> Participants:
    return participants_of(director_of(request), caller_of(request))


@router.get("/events", tags=["dashboard"], summary="Overview and participants, live (server-sent events)")
async def events(request: Request) -> StreamingResponse:
    here = at_hand(request)
    return _stream(streams.of_everything(here.director, here.view, caller_of(request), still_admits(request)))


@router.get("/runs/{run}/events", tags=["dashboard"], summary="A run with its rounds and metrics, live")
async def run_events(
    request: Request,
    run: InPath,
    from_round: Annotated[Count, Query(strict=False, description="Leave out what there is of rounds before it.")] = 0,
) -> StreamingResponse:
    director = director_of(request)
    seen = request.headers.get("last-event-id", "")
    first = max(from_round, int(seen)) if seen.isascii() and seen.isdecimal() and len(seen) < 10 else from_round
    return _stream(streams.of_run(director, director.run(run).name, first, still_admits(request)))


@router.get("/settings", tags=["dashboard"], summary="Every setting of a run: default, meaning, allowed values")
async def settings() -> SettingsJson:
    return SettingsJson(
        settings=[
            SettingJson(key=one.name, default=one.default, meaning=one.description, allowed=one.allowed)
            for one in settings_reference()
        ]
    )


@router.post("/resolve", tags=["runs"], summary="Check settings, and make a specification of them")
async def resolve(
    request: Request,
    values: Annotated[
        dict[str, Any],
        Body(description="Tables of settings, as in a TOML file.", examples=[{"run": {"name": "demo", "rounds": 5}}]),
    ],
) -> Specification:
    spec = await at_hand(request).resolver.resolve(values)
    return Specification(spec=spec.model_dump(mode="json"))


@router.get("/runs/{run}/commits", tags=["results"], summary="The commits of the body, and what went into each")
async def commits(
    request: Request,
    run: InPath,
    after: Annotated[Count, Query(strict=False, description="Only those that follow on this version.")] = 0,
) -> Commits:
    here = at_hand(request)
    return await commits_of(here.director, here.data_plane, run, after)


@router.get("/runs/{run}/partition", tags=["results"], summary="How many train samples of each class a client has")
async def partition(request: Request, run: InPath) -> PartitionJson:
    found = director_of(request).run(run)
    counts, clients = found.class_counts, found.state.clients
    if counts is None or len(counts) != len(clients):  # or the run has no clients yet
        return PartitionJson(classes=None, clients={})
    return PartitionJson(classes=len(counts[0]), clients=dict(zip(clients, counts, strict=True)))


@router.post("/runs/{run}/partition", tags=["runs"], summary="Tell how the run's data is divided, where that is known")
async def tell_partition(request: Request, run: InPath, told: ClassCounts) -> PartitionJson:
    director = director_of(request)
    _check(director.run(run).spec, told.class_counts)
    await director.keep_class_counts(run, told.class_counts)
    return await partition(request, run)


@router.get("/runs/{run}/results.zip", tags=["results"], summary="run.toml, summary.json, metrics.csv, profile.csv")
async def results(request: Request, run: InPath) -> FileResponse:
    director = director_of(request)
    found, metrics = director.run(run), await director.metrics(run)
    rounds = list(found.rounds.values())
    question = {
        "spec": found.spec_json,
        "rounds": [round_json(row).model_dump(mode="json") for row in rounds],
        "metrics": metrics,
        "profile": profile_of(rounds, metrics).model_dump(mode="json")["profile"],
    }
    handle, path = tempfile.mkstemp(prefix="microsfl-", suffix=".zip")
    os.close(handle)
    try:
        await errand(PACK, {**question, "to": path}, PACK_WITHIN_S)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    gone = BackgroundTask(Path(path).unlink, missing_ok=True)
    return FileResponse(path, media_type="application/zip", filename=f"{run}.zip", background=gone)


@router.get("/runs/{run}/weights", tags=["results"], summary="Where the weights are; no tensor comes through here")
async def weights(request: Request, response: Response, run: InPath) -> WeightsJson:
    director = director_of(request)
    traits, told = director.run(run).spec.strategy.traits, director.roster.told()
    split, fed = [url.removeprefix(DNS) for url in told["split_servers"]], told["fed_server"]
    parts = []
    token = partial(_token_for, request, run)
    if traits.split and split:
        parts.append(WeightsLink(part="body", url=NEWEST.format(split[0], run) + token(Audience.BODY)))
    if traits.federated and fed:
        parts.append(WeightsLink(part="client-side", url=NEWEST.format(fed, run) + token(Audience.CLIENT_SIDE)))
    response.headers["cache-control"] = "no-store"
    return WeightsJson(parts=parts)


def _token_for(request: Request, run: str, audience: Audience) -> str:
    """The query of a link, where servers want a token."""
    identities = at_hand(request).identities
    return "" if identities is None else f"?token={identities.link(caller_of(request), run, audience)}"


async def commits_of(director: Director, data_plane: DataPlane, name: str, after: int) -> Commits:
    """The commits of a run's body, as a split server reads them in the store.

    Raises:
        RunNotFound: when the coordinator has no such run.
        Unreachable: when no split server answers.
    """
    run = director.run(name)
    if not run.spec.strategy.traits.split:
        why = f"The strategy {run.spec.strategy.name} does not cut the model: it has no body, and no commits of one."
        return Commits(commits=[], newest=0, files="there", message=why)
    try:
        found = await data_plane.commits(lambda: director.roster.servers(SPLIT_SERVER), name, after, COMMITS_WITHIN_S)
    except (RunNotFound, VersionNotFound) as error:
        return _gone(name, error)
    if found.newest < run.state.body_version:
        return _gone(name, f"its newest version there is {found.newest}, and it had {run.state.body_version}.")
    for commit in found.commits:
        if commit.closes:
            commit.created_at = run.rounds.get(commit.round, {}).get("synced_at")
    return Commits(commits=found.commits, newest=found.newest, files="there", message=None)


def _gone(name: str, why: MicrosflError | str) -> Commits:
    message = f"The files of run '{name}' are not in the store any more, or not all of them: {why}"
    return Commits(commits=[], newest=0, files="gone", message=message)


def _check(spec: RunSpec, counts: list[list[int]]) -> None:
    if len(counts) != spec.run_clients or len({len(row) for row in counts}) != 1:
        raise InvalidSetting(
            f"class_counts: must have {spec.run_clients} lists of equal length, one for each client of the run."
        )


def _stream(frames: Any) -> StreamingResponse:
    # Proxies are not to collect it first.
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)
