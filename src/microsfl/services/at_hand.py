"""What the coordinator's routes have at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Path, Request

from .api import RunName
from .data_plane import DataPlane
from .director import Director
from .overview import View
from .resolver import Resolver

InPath = Annotated[RunName, Path(description="The run's name.")]


@dataclass(frozen=True)
class AtHand:
    director: Director
    data_plane: DataPlane
    view: View
    resolver: Resolver


def at_hand(request: Request) -> AtHand:
    found: AtHand = request.app.state.at_hand
    return found


def director_of(request: Request) -> Director:
    return at_hand(request).director
