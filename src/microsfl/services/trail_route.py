"""The audit trail over HTTP, for whoever checks it and keeps its last hash elsewhere."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from ..records.trail import PAGE
from .api import Count
from .at_hand import RESPONSES, at_hand
from .json_body import JsonRoute

router = APIRouter(prefix="/api", route_class=JsonRoute, responses=RESPONSES)


class EntryJson(BaseModel):
    seq: int
    at: float
    actor: str
    action: str
    object: str
    details: dict[str, Any]
    previous: str = Field(description="hash of the entry before it")
    hash: str = Field(description="sha256 of all the others, as docs/guides/security.md says")


class HeadJson(BaseModel):
    seq: int = Field(description="of the last entry; 0: there is none")
    hash: str


class TrailJson(BaseModel):
    entries: list[EntryJson]
    head: HeadJson


@router.get("/audit", tags=["admission"], summary="Who did what when: the audit trail, in order")
async def audit(
    request: Request,
    after: Annotated[Count, Query(strict=False, description="Only entries with a number above it.")] = 0,
    limit: Annotated[int, Query(ge=1, le=PAGE, description="At most so many.")] = PAGE,
) -> TrailJson:
    links, head = await asyncio.to_thread(at_hand(request).refusals.trail.after, after, limit)
    entries = [EntryJson(**{**vars(one), "details": json.loads(one.details)}) for one in links]
    return TrailJson(entries=entries, head=HeadJson(**asdict(head)))
