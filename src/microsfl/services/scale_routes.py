"""The recommendation of how many split servers there should be, as autoscalers read it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from ..errors import InvalidSetting
from .at_hand import RESPONSES, at_hand, director_of
from .json_body import JsonRoute
from .roster import SPLIT_SERVER
from .scale import MOST_REPLICAS, PER_REPLICA

router = APIRouter(prefix="/api", route_class=JsonRoute, responses=RESPONSES)


class ScaleJson(BaseModel):
    replicas: int = Field(description="split servers that there should be; 0 when no run needs any")
    alive: int = Field(description="those that there are, without those that are about to end")
    load: float = Field(description="requests that wait at them or are computed, mean over the last seconds, in all")
    busy: float = Field(description="share of the time in which a split server works, mean over them")
    runs: int = Field(description="that need split servers now")
    per_replica: float = Field(description="requests that each should have")


@router.get(
    "/scale",
    tags=["service"],
    summary="How many split servers there should be",
    description="For whoever adds and removes them. More are recommended at once, fewer after half a minute.",
)
async def scale(
    request: Request,
    least: Annotated[int, Query(alias="min", ge=0, le=MOST_REPLICAS, description="No fewer than that.")] = 0,
    most: Annotated[int, Query(alias="max", ge=0, le=MOST_REPLICAS, description="No more than that.")] = MOST_REPLICAS,
    per_replica: Annotated[float, Query(gt=0, le=1000, description="Requests that each should have.")] = PER_REPLICA,
) -> ScaleJson:
    if least > most:
        raise InvalidSetting(f"min: {least} is more than max, {most}.")
    found = at_hand(request).scale
    return ScaleJson(
        replicas=found.replicas(least, most, per_replica),
        alive=director_of(request).roster.count(SPLIT_SERVER),
        load=round(found.load, 3),
        busy=round(found.busy, 3),
        runs=found.runs,
        per_replica=per_replica,
    )
