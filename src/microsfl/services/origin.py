"""Keeps web pages of other sites from using the browser of somebody who reaches the coordinator."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import CrossOrigin
from .http import on_microsfl_error

READING = {"GET", "HEAD", "OPTIONS"}


class SameOrigin:
    """Middleware that refuses what changes something, when a browser says that a page of another origin asks for it.

    Whoever is no browser says nothing of an origin, and is let through.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self._app
        if scope["type"] == "http" and scope["method"] not in READING:
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                error = CrossOrigin(f"A page of {origin[:200]} may not change anything on {headers.get('host')}.")
                answer = await on_microsfl_error(Request(scope), error)
        await answer(scope, receive, send)
