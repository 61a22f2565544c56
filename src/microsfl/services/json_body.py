"""JSON bodies of the coordinator's API: bounded, finite, flat enough; and its one error shape for what is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from inspect import signature
from typing import Any, get_type_hints

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import InputError, InvalidSetting, UnknownSetting
from ..trust.secret import PREFIX
from .http import Handler, on_microsfl_error, read_json

MAX_DEPTH = 16


class JsonRequest(Request):
    """A request whose body is read once, through the checks below."""

    _checked: dict[str, Any]

    async def check(self) -> None:
        self._checked = await read_json(self)
        check_plain(self._checked)

    async def body(self) -> bytes:
        return json.dumps(self._checked).encode()

    async def json(self) -> Any:
        return self._checked


class JsonRoute(APIRoute):
    """A route that checks a body, where it takes one, before FastAPI sees it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_checked(request: Request) -> Response:
            checked = JsonRequest(request.scope, request.receive)
            await checked.check()
            return await handle(checked)

        return handle_checked


class QuickRoute(JsonRoute):
    """A route for what clients ask all the time: without FastAPI's dependencies, which cost more than the answer.

    Its endpoint takes the request, by name what stands in the path, and the body; it returns a model. What is wrong is
    told as FastAPI does, and the description of the API knows no difference.
    """

    answer: Callable[[Request], Coroutine[Any, Any, Response]]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        hints = get_type_hints(self.endpoint, include_extras=True)
        _, *names = signature(self.endpoint).parameters
        in_path = {name: TypeAdapter(hints[name]) for name in names if name in self.param_convertors}
        [body_name] = (name for name in names if name not in in_path)
        body_type: TypeAdapter[Any] = TypeAdapter(hints[body_name])

        async def answer(request: Request) -> Response:
            body = await read_json(request)
            check_plain(body)
            values = {name: _validated(kind, request.path_params[name], name) for name, kind in in_path.items()}
            values[body_name] = _validated(body_type, body, "body")
            model: BaseModel = await self.endpoint(request, **values)
            return Response(model.model_dump_json(), media_type="application/json")

        self.answer = answer
        return answer


class Shortcut:
    """Middleware that takes requests of quick routes there, past the layers that look for a route among all.

    handlers: those of the app, for what these routes raise.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute], handlers: Mapping[Any, Handler]) -> None:
        self._app, self._handlers = app, handlers
        self._routes = [route for route in routes if isinstance(route, QuickRoute)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self._app
        if scope["type"] == "http":
            for route in self._routes:
                found = route.path_regex.match(scope["path"])
                if found and scope["method"] in (route.methods or ()):
                    request = Request({**scope, "path_params": found.groupdict()}, receive)
                    answer = await self._answer(route, request)
                    break
        await answer(scope, receive, send)

    async def _answer(self, route: QuickRoute, request: Request) -> Response:
        try:
            return await route.answer(request)
        except Exception as error:
            kinds = [kind for kind in type(error).__mro__ if kind in self._handlers and kind is not Exception]
            if not kinds:
                raise  # to the outermost net
            return await self._handlers[kinds[0]](request, error)


def _validated(kind: TypeAdapter[Any], value: Any, place: str) -> Any:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": (place, *one["loc"])} for one in error.errors()]) from None


def check_plain(body: dict[str, Any]) -> None:
    """Refuse what Python reads as JSON but cannot write back as such: kept in the records, it would break every answer.

    Raises:
        InvalidSetting: naming the field with a NaN, an infinity or half a character, or one nested too deep.
    """
    level: list[tuple[str, Any]] = [("", body)]
    for _ in range(MAX_DEPTH):
        for place, value in level:
            _check_scalar(place, value)
        level = [child for place, value in level for child in _children(place, value)]
        if not level:
            return
    raise InvalidSetting(f"{level[0][0][:200]}: the body is nested deeper than {MAX_DEPTH} levels.")


def _check_scalar(place: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidSetting(f"{place}: {value} is not a finite number.")
    if isinstance(value, str) and not _is_text(value):
        raise InvalidSetting(f"{place}: {value[:40]!r} is not valid Unicode.")


def _children(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        yield from ((f"{place}[{index}]", child) for index, child in enumerate(value))
    elif isinstance(value, dict):
        for key, child in value.items():
            if not _is_text(key):
                raise InvalidSetting(f"{place}: the name {key[:40]!r} is not valid Unicode.")
            yield f"{place}.{key}" if place else key, child


def _is_text(value: str) -> bool:
    # Python's JSON reader lets lone surrogates through, which no encoder takes back.
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """FastAPI's list of what is wrong with a request, as one sentence in the one error shape."""
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    sentence = "; ".join(_sentence(problem) for problem in problems[:5])
    unknown = all(problem["type"] == "extra_forbidden" for problem in problems)
    kind: type[InputError] = UnknownSetting if unknown else InvalidSetting
    return await on_microsfl_error(request, kind(sentence))


def _sentence(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"] if part != "body") or "body"
    if problem["type"] == "extra_forbidden":
        return f"'{place}' is not a field of this request"
    got = repr(problem.get("input"))
    shown = "a secret, which is not repeated here" if PREFIX in got else f"{got:.60}"
    return f"{place}: {str(problem['msg']).removeprefix('Value error, ')} (got {shown})"
