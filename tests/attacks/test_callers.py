"""Bounds of what one caller sends: refused with the time to come again, which clients keep; others are served."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from microsfl.client.http import Http
from microsfl.errors import InvalidId, Overloaded, TooManyRequests, Unreachable
from microsfl.services.addresses import network_of
from microsfl.services.callers import Admission, Bounds, Callers
from microsfl.services.data_plane import DataPlane
from microsfl.services.turns import Line, Places, Turns
from microsfl.spec import RunSpec
from tests.attacks.inside import inside
from tests.service.control_plane import served
from tests.world import spec_of


@pytest.fixture
def spec() -> RunSpec:
    return spec_of(model={"u_shaped": False})


def ask(url: str, path: str = "/v1/health") -> urllib3.BaseHTTPResponse:
    return urllib3.request("GET", url + path, retries=False, timeout=20)


def test_a_rate_over_the_bound_is_refused_in_the_one_error_shape(spec: RunSpec) -> None:
    with inside(spec, Bounds(per_s=2)) as live:
        before = live.contents()
        answers = [ask(live.url) for _ in range(3)]
        refused = [one for one in answers if one.status != 200]
        assert [one.status for one in refused] == [429]
        assert refused[0].headers["retry-after"] == "1"
        assert refused[0].json()["error"]["code"] == "too_many_requests"
        assert live.contents() == before


class Held:
    """An app whose requests stay under way until `go` is set."""

    def __init__(self, bounds: Bounds) -> None:
        self.go, self.entered = threading.Event(), threading.Semaphore(0)
        app = Starlette(routes=[Route("/{name}", self.endpoint)])
        app.add_middleware(Admission, callers=Callers(bounds))
        self.app = app

    async def endpoint(self, request: Request) -> Response:
        if request.path_params["name"] == "wait":
            self.entered.release()
            await asyncio.to_thread(self.go.wait)
        return Response()


def test_requests_under_way_are_bounded_by_caller_and_in_all() -> None:
    for bounds, status, code in (
        (Bounds(requests=9, each=2), 429, "too_many_requests"),
        (Bounds(requests=2, each=9), 503, "overloaded"),
    ):
        held = Held(bounds)
        with served(held.app) as url, ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(ask, url, "/wait") for _ in range(2)]
            for _ in waiting:
                assert held.entered.acquire(timeout=20)
            refused = ask(url, "/other")
            held.go.set()
            assert [one.result().status for one in waiting] == [200, 200]
            assert (refused.status, refused.json()["error"]["code"]) == (status, code)
            assert ask(url, "/other").status == 200


def test_who_has_nothing_under_way_is_let_in_where_others_fill_the_server() -> None:
    callers = Callers(Bounds(requests=2, each=9))
    callers.open = 2
    busy, idle = callers.of("busy", 0.0), callers.of("idle", 0.0)
    busy.open = 2
    assert isinstance(callers.refusal(busy, 0.0), Overloaded)
    assert callers.refusal(idle, 0.0) is None


def test_who_comes_again_too_soon_waits_for_its_refusal_and_has_a_smaller_share() -> None:
    callers = Callers(Bounds())
    known = callers.of("hasty", 0.0)
    assert known.refuse("hasty", 10.0, TooManyRequests()) == 0
    assert known.hasty_until == 0
    assert known.refuse("hasty", 10.25, TooManyRequests()) == 0.75
    assert known.hasty_until > 10.25
    patient = callers.of("patient", 0.0)
    assert [patient.refuse("patient", now, TooManyRequests()) for now in (10.0, 11.0, 12.0)] == [0, 0, 0]


def test_hosts_of_one_network_are_one_caller() -> None:
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2:ffff::") != network_of("2001:db8:1:3::")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") != network_of("10.0.0.2")
    assert network_of("nonsense") == "nonsense"


# Turns


def order_of(jobs: Sequence[tuple[Line, float]]) -> list[str]:
    """In which order jobs are done that came in this one, each of which takes so many seconds of the thread."""
    done: list[str] = []

    async def main() -> None:
        with ThreadPoolExecutor(1) as thread:
            turns, gate = Turns(thread), threading.Event()
            waiting = [asyncio.create_task(turns.run(Line("first"), gate.wait)) for _ in range(2)]
            await asyncio.sleep(0)

            def work(name: str, seconds: float) -> None:
                done.append(name)
                until = time.perf_counter() + seconds
                while time.perf_counter() < until:
                    pass

            waiting += [asyncio.create_task(turns.run(line, work, line.name, took)) for line, took in jobs]
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(*waiting)

    asyncio.run(main())
    return done


def test_a_line_of_many_does_not_keep_others_waiting() -> None:
    flood, others = [(Line("flood"), 0.002)] * 100, [(Line(name), 0.002) for name in ("a", "b", "c")] * 5
    done = order_of([*flood, *others])
    assert max(index for index, name in enumerate(done) if name != "flood") < 30
    assert done.count("flood") == 100


def test_jobs_that_take_long_count_for_what_they_take() -> None:
    done = order_of([*[(Line("slow"), 0.02)] * 10, *[(Line("quick"), 0.001)] * 50])
    assert done[:40].count("quick") >= 30


def test_a_line_keeps_its_order_and_the_coordinators_is_first() -> None:
    numbered: list[int] = []

    async def main() -> None:
        with ThreadPoolExecutor(1) as thread:
            turns, gate = Turns(thread), threading.Event()
            blocked = [asyncio.create_task(turns.run(Line("x"), gate.wait)) for _ in range(2)]
            await asyncio.sleep(0)
            one = [asyncio.create_task(turns.run(Line("x"), numbered.append, number)) for number in range(20)]
            last = asyncio.create_task(turns.run(Line("coordinator", math.inf), numbered.append, -1))
            gone = asyncio.create_task(turns.run(Line("y"), numbered.append, -2))
            await asyncio.sleep(0)
            gone.cancel()
            gate.set()
            await asyncio.gather(*blocked, *one, last)

    asyncio.run(main())
    assert numbered == [-1, *range(20)]


def test_an_error_is_raised_where_the_answer_is_waited_for() -> None:
    def refuse() -> None:
        raise InvalidId("bad")

    async def main() -> None:
        with ThreadPoolExecutor(1) as thread:
            turns = Turns(thread)
            with pytest.raises(InvalidId):
                await turns.run(Line("x"), refuse)
            assert await turns.run(Line("x"), lambda: 7) == 7

    asyncio.run(main())


def test_places_go_round_and_some_are_left() -> None:
    async def main() -> None:
        places, given = Places(4, 2), list[str]()

        async def hold(name: str, leave: asyncio.Event) -> None:
            async with places.of(Line(name)):
                given.append(name)
                await leave.wait()

        first, later = asyncio.Event(), asyncio.Event()
        flood = [asyncio.create_task(hold("flood", first)) for _ in range(10)]
        await asyncio.sleep(0)
        assert given == ["flood"] * 2
        tasks = [asyncio.create_task(hold(name, later)) for name in ("a", "b", "c", "c")]
        await asyncio.sleep(0)
        assert given == ["flood", "flood", "a", "b"]
        flood[-1].cancel()
        later.set()
        await asyncio.gather(*tasks)
        first.set()
        await asyncio.gather(*flood, return_exceptions=True)
        assert sorted(given) == ["a", "b", "c", "c", *["flood"] * 9]
        async with places.of(Line("d")), places.of(Line("d")), places.of(Line("e")), places.of(Line("e")):
            pass  # all four are back

    asyncio.run(main())


# Clients


class Refusing:
    """Refuses the first `times` requests, with such a status and such a `Retry-After`."""

    def __init__(self, status: int, times: int, after: str | None) -> None:
        self.status, self.left, self.after, self.asked = status, times, after, 0
        self.app = Starlette(routes=[Route("/{path:path}", self.endpoint, methods=["GET", "POST"])])

    async def endpoint(self, _: Request) -> Response:
        self.asked += 1
        self.left -= 1
        if self.left < 0:
            return JSONResponse({"version": 1, "commits": [], "newest": 0})
        error = {429: TooManyRequests, 503: Overloaded}[self.status]()
        return JSONResponse(error.to_wire(), self.status, {} if self.after is None else {"retry-after": self.after})


@pytest.mark.parametrize("status", [429, 503])
def test_a_client_waits_as_long_as_it_is_told_to(status: int) -> None:
    server, pauses = Refusing(status, 2, "7"), list[float]()
    http = Http(retry_s=60, sleep=pauses.append)
    with served(server.app) as url:
        assert http.request("GET", lambda: [url], "/x").status == 200
    assert len(pauses) == 2
    assert all(6.9 <= pause <= 7 * 1.25 for pause in pauses)
    assert pauses[0] != pauses[1]


def test_a_client_does_not_wait_longer_than_it_may() -> None:
    pauses: list[float] = []
    server = Refusing(429, 5, "3600")
    with served(server.app) as url, pytest.raises(Unreachable, match="too many requests"):
        Http(retry_s=30, sleep=pauses.append).request("GET", lambda: [url], "/x")
    assert pauses == []
    assert server.asked == 1


@pytest.mark.parametrize("after", [None, "-1", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "1e9"])
def test_what_is_no_number_of_seconds_is_not_heeded(after: str | None) -> None:
    pauses: list[float] = []
    with served(Refusing(503, 1, after).app) as url:
        Http(sleep=pauses.append).request("GET", lambda: [url], "/x")
    assert len(pauses) == 1
    assert pauses[0] <= 0.05


def test_another_server_is_asked_at_once() -> None:
    pauses: list[float] = []
    with served(Refusing(503, 9, "7").app) as full, served(Refusing(503, 0, None).app) as free:
        assert Http(sleep=pauses.append).request("GET", lambda: [full, free], "/x").status == 200
    assert pauses == []


def test_the_coordinator_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def noted(seconds: float) -> None:
        pauses.append(seconds)

    plane: Any = DataPlane()
    with served(Refusing(503, 1, "2").app) as url:
        shim = SimpleNamespace(sleep=noted, to_thread=asyncio.to_thread)
        monkeypatch.setattr("microsfl.services.data_plane.asyncio", shim)
        asyncio.run(plane.commits(lambda: [url], "toy", 0, 30.0))
    assert len(pauses) == 1
    assert 2 <= pauses[0] <= 2.5
