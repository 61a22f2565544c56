"""What the coordinator's routes have at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Path, Request

from .api import ErrorJson, RunName
from .data_plane import DataPlane
from .director import Director
from .identities import Identities
from .overview import View
from .readiness import Readiness
from .refusals import Refusals
from .resolver import Resolver
from .scale import Scale

RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorJson, "description": "The request is wrong."},
    "5XX": {"model": ErrorJson, "description": "Something behind the coordinator failed; try again later."},
}

InPath = Annotated[RunName, Path(description="The run's name.")]


@dataclass(frozen=True)
class AtHand:
    director: Director
    data_plane: DataPlane
    view: View
    resolver: Resolver
    refusals: Refusals
    scale: Scale
    readiness: Readiness
    identities: Identities | None = None  # none: everybody may do everything


def at_hand(request: Request) -> AtHand:
    found: AtHand = request.app.state.at_hand
    return found


def director_of(request: Request) -> Director:
    return at_hand(request).director
