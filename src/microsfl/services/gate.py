"""The gate of every service: who asks, and whether it may. An endpoint that is in no table cannot be served."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from http.cookies import CookieError, SimpleCookie
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote_plus

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import Forbidden, InputError, MicrosflError, Unauthenticated
from ..trust import scopes
from ..trust.tokens import ANY, Caller, Verifier
from .http import on_microsfl_error
from .meter import with_paths

COOKIE = "microsfl_session"
LONGEST_COOKIES = 8192
LONGEST_QUERY = 8192

# (method, path of the route) -> scopes, of which the caller needs any.
Endpoints: TypeAlias = Mapping[tuple[str, str], tuple[scopes.Scope, ...]]


async def _at_once(_: Scope) -> None:
    """Nobody is held back."""


# What a caller is where a service takes everybody: somebody who may be anyone, and do anything.
EVERYBODY = frozenset({ANY})
# Whoever asks for what is public.
NOBODY = Caller("nobody", scopes.Role.VIEWER, frozenset(), frozenset())


class Gate:
    """Middleware that lets a request through when its token has a scope of the endpoint.

    The caller is then in the request's state; `caller_of` gives it. Of a path with a run's name, the caller must be
    invited to that run.

    Args:
        verifier: what checks tokens; None: everybody may do everything.
        routes: the app's, asked at the first request, when all are there.
        cookies: whether a browser's session counts as a token, too.
        links: whether a link's token may stand in the query of what it downloads.
        hold_back: awaited before a refusal for want of a valid token is said.
        by_secret: path -> who an id and a secret are of, for endpoints whose callers cannot get tokens.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifier: Verifier | None,
        endpoints: Endpoints,
        routes: Callable[[], Iterable[BaseRoute]],
        *,
        cookies: bool = False,
        links: bool = False,
        hold_back: Callable[[Scope], Awaitable[None]] = _at_once,
        by_secret: Mapping[str, Callable[[str, str], Caller]] | None = None,
    ) -> None:
        self._by_secret = by_secret or {}
        self._app, self._verifier, self._endpoints = app, verifier, endpoints
        self._cookies, self._links, self._hold_back = cookies, links, hold_back
        self._get_routes = routes
        self._patterns: list[Route | Mount] | None = None
        self._fixed: dict[tuple[str, str], tuple[scopes.Scope, ...]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self._app
        if scope["type"] == "http" and self._verifier is not None:
            try:
                self._admit(scope, self._verifier)
            except MicrosflError as error:
                answer = await on_microsfl_error(Request(scope), error)
                if isinstance(error, Unauthenticated):
                    await self._hold_back(scope)
                    answer.headers["www-authenticate"] = "Bearer"
        await answer(scope, receive, send)

    def _admit(self, scope: Scope, verifier: Verifier) -> None:
        method, path = scope["method"], scope["path"]
        wanted, run = self._fixed.get((method, path)), None
        if wanted is None:
            wanted, run = self._look_up("GET" if method == "HEAD" else method, path)
        if scopes.Scope.PUBLIC in wanted:
            scope.setdefault("state", {})["caller"] = NOBODY
            return
        link = _link(scope) if self._links and scopes.Scope.DOWNLOAD in wanted else None
        headers = Headers(scope=scope)
        given = basic_of(headers) if path in self._by_secret else None
        # The caller is there also for whoever notes who was refused.
        state = scope.setdefault("state", {})
        if given is not None:
            caller = state["caller"] = self._by_secret[path](*given)
        else:
            token = link or token_of(headers, cookies=self._cookies)
            caller = verifier.verify(token)
            state.update(caller=caller, admits=partial(_admits, verifier, token))
        if link is not None and caller.role is not scopes.Role.LINK:
            raise Forbidden("Only a link's token may stand in an address: others would stay there for too long.")
        if not any(map(caller.may, wanted)):
            raise Forbidden(f"A {caller.role} may not {method} {path[:200]}.")
        if run is not None:
            caller.must_be_in(run)

    def _look_up(self, method: str, path: str) -> tuple[tuple[scopes.Scope, ...], str | None]:
        """The scopes of which one is needed, and the run in the path."""
        if self._patterns is None:
            self._patterns = list(with_paths(self._get_routes()))
        there = [(route, found) for route in self._patterns if (found := route.path_regex.match(path))]
        for route, found in there:
            wanted = self._endpoints.get((method, route.path))
            if wanted is not None:
                names = found.groupdict()
                if not names:
                    self._fixed[method, path] = wanted
                return wanted, names.get("run")
        # Nothing answers there, or not to this method: the app says so, and nothing else is behind it.
        if any(method in (getattr(route, "methods", None) or ()) for route, _ in there):
            raise Forbidden(f"{method} {path[:200]} has no scope.")
        return (scopes.Scope.PUBLIC,), None


def token_of(headers: Headers, *, cookies: bool) -> str:
    """The token that came with a request. Raises Unauthenticated when there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    if cookies and (found := _session(headers.get("cookie", ""))):
        return found
    raise Unauthenticated(
        "This needs a token (`Authorization: Bearer …`), which a credential gives: `microsfl enrol` makes one of an "
        "invitation, and microsfl's own commands find it then, or in the file that --credential names."
    )


def basic_of(headers: Headers) -> tuple[str, str] | None:
    """Id and secret in the header, where OAuth libraries put them (RFC 6749, section 2.3.1). Raises InputError."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, secret = base64.b64decode(given, validate=True).decode().partition(":")
    except ValueError:
        raise InputError("The header Authorization is not a name and a secret in base64.") from None
    return unquote_plus(name), unquote_plus(secret)


def _link(scope: Scope) -> str | None:
    """The token in the query."""
    query: bytes = scope.get("query_string", b"")
    if len(query) > LONGEST_QUERY:
        return None
    return dict(parse_qsl(query.decode("latin-1"), max_num_fields=16)).get("token")


def _session(cookies: str) -> str | None:
    try:
        found = SimpleCookie(cookies).get(COOKIE) if len(cookies) <= LONGEST_COOKIES else None
    except CookieError:
        return None
    return None if found is None else found.value


def caller_of(request: Request) -> Caller:
    """Who asks. Where a service takes everybody, it is somebody who may be anyone."""
    found: Caller | None = request.scope.get("state", {}).get("caller")
    return found or Caller("anybody", scopes.Role.OPERATOR, EVERYBODY, EVERYBODY)


def _admits(verifier: Verifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except MicrosflError:
        return False
    return True


def still_admits(request: Request) -> Callable[[], bool]:
    """Asked again and again, says whether the token that opened a long answer is still right."""
    found: Callable[[], bool] | None = request.scope.get("state", {}).get("admits")
    return found or (lambda: True)


def check_still_admitted(request: Request) -> None:
    """To be asked when a request has waited for long. Raises Unauthenticated when it would not be let in any more."""
    if not still_admits(request)():
        raise Unauthenticated(f"The credential of '{caller_of(request).id}' was revoked while this request waited.")


def without_scope(routes: Iterable[BaseRoute], endpoints: Endpoints) -> list[str]:
    """The endpoints that are in no table: such an app must not be served."""
    return [
        f"{method} {route.path}"
        for route in with_paths(routes)
        for method in sorted((getattr(route, "methods", None) or {"GET"}) - {"HEAD"})
        if (method, route.path) not in endpoints
    ]
