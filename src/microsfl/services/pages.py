"""The dashboard's page and its files, from the package itself: nothing is loaded from anywhere else."""

from __future__ import annotations

import asyncio
import hashlib
from functools import lru_cache

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..dashboard import INDEX, PLOTLY, static_file

# plotly sets styles of single elements, and makes pictures of its charts.
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index(request: Request) -> Response:
    return await _file(request, INDEX)


@router.get("/static/{name:path}")
async def static(request: Request, name: str) -> Response:
    return await _file(request, name)


async def _file(request: Request, name: str) -> Response:
    """The file, or only the word that the browser's copy is still right."""
    found = await asyncio.to_thread(_read, name)
    if found is None:
        if name == PLOTLY:
            raise HTTPException(404, "The charts need plotly: pip install 'microsfl[dashboard]'.")
        raise HTTPException(404, f"The dashboard has no file '{name[:100]}'.")
    content, kind, tag = found
    headers = {**HEADERS, "etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


@lru_cache(maxsize=64)
def _read(name: str) -> tuple[bytes, str, str] | None:
    found = static_file(name)
    return None if found is None else (*found, f'"{hashlib.sha256(found[0]).hexdigest()[:32]}"')
