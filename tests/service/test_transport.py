"""The client's transport against servers that refuse, fail, vanish or forget. They are stand-ins: small real HTTP
servers that answer by script, since it is the failures that matter here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from microsfl.client import http
from microsfl.client.choice import Choice
from microsfl.client.http import Http
from microsfl.client.transport import SplitServers
from microsfl.errors import ActivationsMissing, MicrosflError, RoundClosed, StoreCorrupt, Unreachable
from microsfl.wire.messages import Backward, Forward, Gradients, Outputs
from microsfl.wire.timing import Timing

Script = Callable[[str, bytes], tuple[int, bytes]]


class Scripted:
    """A server that answers what `script` says, and counts."""

    def __init__(self, script: Script) -> None:
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.bodies.append(body)
                status, answer = script(self.path, body)
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.send_header("server-timing", outer.timing)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.timing = ""
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def scripted() -> Iterator[Callable[[Script], Scripted]]:
    servers: list[Scripted] = []

    def start(script: Script) -> Scripted:
        servers.append(Scripted(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


GOOD = Gradients(version=1, newest=2, gradients={"0": torch.ones(2)}).pack()
REQUEST = Backward(run="r", round=0, client="c", unit=0, version=1, gradients={"0": torch.ones(2)})


def good(_path: str, _body: bytes) -> tuple[int, bytes]:
    return 200, GOOD


def refuse(error: MicrosflError) -> Script:
    import json

    return lambda _path, _body: (error.status, json.dumps(error.to_wire()).encode())


def split(*urls: str, favourite: int = 0, retry_s: float = 10.0) -> SplitServers:
    return SplitServers(Http(retry_s), Choice("sticky", favourite), lambda: urls)


DEAD = "http://127.0.0.1:9"  # nobody listens on the discard port


def test_a_dead_server_is_passed_over_and_then_asked_last(scripted: Callable[[Script], Scripted]) -> None:
    alive = scripted(good)
    servers = split(DEAD, alive.url)
    assert servers.backward(REQUEST, {}).newest == 2
    assert sorted(servers._order(), key=servers.http._failed_lately) == [alive.url, DEAD]
    assert servers.backward(REQUEST, {}).newest == 2
    assert len(alive.bodies) == 2


def test_a_failover_is_counted_for_who_answered(scripted: Callable[[Script], Scripted]) -> None:
    alive = scripted(good)
    alive.timing = Timing(0.0, 0.0, 0.0, 0.0, 0.0, server="alive").header()
    servers = split(DEAD, alive.url, favourite=sorted([DEAD, alive.url]).index(DEAD))
    servers.backward(REQUEST, {})
    servers.backward(REQUEST, {})  # the dead one is not asked first any more
    assert servers.traffic.spent()["alive/failovers"] == 1
    assert servers.traffic.spent()["alive/requests"] == 2
    servers.traffic.begin()
    servers.backward(REQUEST, {})
    assert "alive/failovers" not in servers.traffic.spent()


def test_two_choices_ask_where_less_waits_and_go_back_where_the_graph_is(
    scripted: Callable[[Script], Scripted],
) -> None:
    outputs = Outputs(version=1, differentiable=("0",), outputs={"0": torch.ones(2)}).pack()
    busy, idle = (scripted(lambda path, _: (200, outputs if path == "/v1/forward" else GOOD)) for _ in range(2))
    busy.timing = Timing(0.0, 0.0, 0.0, 0.0, 0.0, load=7).header()
    urls = [busy.url, idle.url]
    servers = SplitServers(Http(10.0), Choice("two", sorted(urls).index(busy.url)), lambda: urls)
    first = Forward(run="r", round=0, client="c", unit=0, activations={"0": torch.ones(2)})
    servers.forward(first)
    servers.forward(first.model_copy(update={"unit": 1}))
    servers.forward(first.model_copy(update={"unit": 2}))
    assert (len(busy.bodies), len(idle.bodies)) == (1, 2)
    servers.backward(REQUEST, {})
    servers.backward(REQUEST.model_copy(update={"unit": 1}), {})
    assert (len(busy.bodies), len(idle.bodies)) == (2, 3)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_failing_server_is_passed_over(scripted: Callable[[Script], Scripted], status: int) -> None:
    failing, alive = scripted(lambda *_: (status, b"oops")), scripted(good)
    split(failing.url, alive.url).backward(REQUEST, {})
    assert (len(failing.bodies), len(alive.bodies)) in {(1, 1), (0, 1)}


def test_a_lone_server_that_recovers_is_asked_again(scripted: Callable[[Script], Scripted]) -> None:
    answers = iter([(503, b""), (500, b"{}"), (200, GOOD)])
    server = scripted(lambda *_: next(answers))
    assert split(server.url).backward(REQUEST, {}).newest == 2
    assert server.bodies[0] == server.bodies[2]


@pytest.mark.parametrize("refusal", [RoundClosed("round 0 is closed"), StoreCorrupt("round 0 is closed")])
def test_a_refusal_is_final_and_keeps_its_class(scripted: Callable[[Script], Scripted], refusal: MicrosflError) -> None:
    """Of a corrupt store too: no other replica has another one."""
    first, second = scripted(refuse(refusal)), scripted(good)
    with pytest.raises(type(refusal), match="round 0 is closed"):
        split(*sorted([first.url]), retry_s=1.0).backward(REQUEST, {})
    assert (len(first.bodies), len(second.bodies)) == (1, 0)


def test_activations_are_sent_again_when_nobody_has_them(scripted: Callable[[Script], Scripted]) -> None:
    def forgetful(_path: str, body: bytes) -> tuple[int, bytes]:
        if Backward.unpack(body).activations:
            return 200, GOOD
        return refuse(ActivationsMissing())("", b"")

    server = scripted(forgetful)
    assert split(server.url).backward(REQUEST, {"0": torch.ones(3)}).newest == 2
    assert [len(Backward.unpack(body).activations) for body in server.bodies] == [0, 1]


def test_when_nobody_answers_it_gives_up_and_says_who_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.01)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        split(DEAD, retry_s=0.05).backward(REQUEST, {})
    with pytest.raises(Unreachable, match="no server is known"):
        split(retry_s=0.05).backward(REQUEST, {})


def test_bytes_are_counted_both_ways(scripted: Callable[[Script], Scripted]) -> None:
    servers = split(scripted(good).url)
    servers.backward(REQUEST, {})
    servers.backward(REQUEST, {})
    assert (servers.traffic.up, servers.traffic.down) == (2 * len(REQUEST.pack()), 2 * len(GOOD))


def test_favourites_spread_the_clients_evenly() -> None:
    urls = ("http://a", "http://b", "http://c")
    firsts = [split(*urls, favourite=number)._order()[0] for number in range(6)]
    assert firsts == [*urls, *urls]


def test_a_server_that_hangs_is_passed_over_within_its_patience(scripted: Callable[[Script], Scripted]) -> None:
    """It accepts and never answers, as after SIGSTOP; it is let go when the other one has answered."""
    released = threading.Event()

    def hang(_path: str, _body: bytes) -> tuple[int, bytes]:
        released.wait(20)
        return 200, GOOD

    hanging, alive = scripted(hang), scripted(good)
    servers = SplitServers(Http(10.0, patience_s=0.1), Choice("sticky", 0), lambda: [hanging.url, alive.url])
    servers._order = lambda: [hanging.url, alive.url]  # type: ignore[method-assign]
    assert servers.backward(REQUEST, {}).newest == 2
    assert (len(hanging.bodies), len(alive.bodies)) == (1, 1)
    released.set()


def test_a_slow_server_is_waited_for_in_the_end(scripted: Callable[[Script], Scripted]) -> None:
    """The only one there is, and slower than the patience: each turn waits twice as long, and a replay is harmless."""
    waits = iter([0.4, 0.4, 0.0])
    slow = scripted(lambda *_: (threading.Event().wait(next(waits)), (200, GOOD))[1])
    assert (
        SplitServers(Http(10.0, patience_s=0.1), Choice("sticky", 0), lambda: [slow.url]).backward(REQUEST, {}).newest
        == 2
    )
    assert len(slow.bodies) >= 2
