"""Server-sent events over real HTTP: what a reader gets, again after a break, and how streams end."""

from __future__ import annotations

import http.client
import json
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from microsfl.records import Records
from microsfl.services import streams
from tests.service.control_plane import CLIENTS, Api, Json, StandIn, begin_demo, coordinator

Event = tuple[str, Json, str | None]


class Stream:
    """A reader of events, as a browser's EventSource is one."""

    def __init__(self, api: Api, path: str, last_id: str | None = None) -> None:
        place = urlsplit(api.url)
        self.connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
        last = {"last-event-id": last_id} if last_id else {}
        self.connection.request("GET", f"/api{path}", headers={**api.headers, **last})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        assert self.answer.headers["content-type"].startswith("text/event-stream")
        self.seen: list[Event] = []

    def close(self) -> None:
        self.connection.close()

    def events(self) -> Iterator[Event]:
        """Until the stream ends; comments are passed over."""
        lines: dict[str, str] = {}
        for line in self.answer:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                lines[name] = value
            elif "data" in lines:
                self.seen.append((lines["event"], json.loads(lines["data"]), lines.get("id")))
                yield self.seen[-1]
                lines = {}
            else:
                lines = {}

    def until(self, fits: Callable[[str, Json], bool]) -> Json:
        return next(data for event, data, _ in self.events() if fits(event, data))

    def rows(self, name: str) -> dict[Any, Json]:
        """What a reader has of rounds or metrics, by their keys, after everything that it got."""
        found = [row for event, data, _ in self.seen if event == name for row in data[name]]
        return {(row["round"], row.get("client")): row for row in found}


@contextmanager
def reading(api: Api, path: str, last_id: str | None = None) -> Iterator[Stream]:
    with closing(Stream(api, path, last_id)) as stream:
        yield stream


def ended(event: str, data: Json) -> bool:
    return event == "run" and data["state"] == "finished"


def finish(api: Api) -> None:
    api.work(*CLIENTS)
    api.wait_for(lambda run: run["state"] == "finished")


def read_all(stream: Stream, api: Api) -> None:
    """Until it has the last round's last result."""
    last = api.get("/runs/demo/metrics")["metrics"][-1]
    for _ in stream.events():
        if stream.rows("metrics").get((last["round"], last["client"])) == last:
            return


def assert_complete(stream: Stream, api: Api) -> None:
    """A reader has what the API has, no more and no less."""
    assert list(stream.rows("rounds").values()) == api.get("/runs/demo/rounds")["rounds"]
    metrics = {(row["round"], row["client"]): row for row in api.get("/runs/demo/metrics")["metrics"]}
    assert stream.rows("metrics") == metrics


def test_a_reader_from_the_start_has_everything_at_the_end(demo: Api) -> None:
    with reading(demo, "/runs/demo/events") as stream:
        assert stream.until(lambda event, _: event == "run")["phase"] == "training"
        finish(demo)
        read_all(stream, demo)
        assert_complete(stream, demo)
        [history] = [data["history"] for event, data, _ in stream.seen if ended(event, data)]
        assert history[-1] == demo.get("/runs/demo")["history"][-1]


def test_a_reader_of_a_run_that_is_over_gets_it_in_one_go(demo: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(demo)
    monkeypatch.setattr(streams, "ROWS", 4)  # a round in an event
    with reading(demo, "/runs/demo/events") as stream:
        read_all(stream, demo)
    assert [event for event, _, _ in stream.seen] == ["run", "rounds", "metrics", "metrics"]
    assert [number for event, _, number in stream.seen if event == "metrics"] == ["1", "1"]
    assert_complete(stream, demo)


def test_nothing_is_sent_twice(demo: Api) -> None:
    with reading(demo, "/runs/demo/events") as stream:
        finish(demo)
        read_all(stream, demo)
    told = [json.dumps(row) for event, data, _ in stream.seen if event == "metrics" for row in data["metrics"]]
    assert len(told) == len(set(told))


def test_a_reader_that_comes_again_gets_what_it_lacks(demo: Api) -> None:
    for task in demo.poll(*CLIENTS):
        demo.report(task)
    for task in demo.poll(*CLIENTS):
        demo.report(task)
    with reading(demo, "/runs/demo/events") as first:
        first.until(
            lambda event, data: event == "metrics" and {row["test_samples"] for row in data["metrics"]} != {None}
        )
        last_id = first.seen[-1][2]
    assert last_id == "1"
    finish(demo)
    with reading(demo, "/runs/demo/events", last_id) as second:
        read_all(second, demo)
    assert {key[0] for key in second.rows("metrics")} == {1}
    assert {key[0] for key in second.rows("rounds")} == {1}
    second.seen = [*first.seen, *second.seen]
    assert_complete(second, demo)


def test_from_round_leaves_out_what_was_before(demo: Api) -> None:
    finish(demo)
    with reading(demo, "/runs/demo/events?from_round=1") as stream:
        read_all(stream, demo)
    assert {key[0] for key in stream.rows("metrics")} == {1}
    [run] = [data for event, data, _ in stream.seen if event == "run"]
    assert [row["round"] for row in run["history"]] == [1]


def test_a_resumed_run_is_followed_on(demo: Api) -> None:
    with reading(demo, "/runs/demo/events") as stream:
        demo.work(CLIENTS[0])
        demo.post("/runs/demo/stop")
        stream.until(lambda event, data: event == "run" and data["state"] == "stopped")
        demo.post("/runs/demo/resume")
        finish(demo)
        stream.until(ended)
        read_all(stream, demo)
        assert_complete(stream, demo)


def test_everything_is_told_and_told_again_when_it_changes(api: Api, plane: StandIn) -> None:
    with reading(api, "/events") as stream:
        assert stream.until(lambda event, _: event == "overview")["runs"] == []
        begin_demo(api, plane.url)
        stream.until(lambda event, data: event == "overview" and bool(data["runs"]))
        busy = "training round 1 of demo"
        stream.until(
            lambda event, data: event == "participants" and busy in {one["doing"] for one in data["participants"]}
        )
        finish(api)
        stream.until(lambda event, data: event == "overview" and data["runs"][0]["state"] == "finished")


def test_what_cannot_be_streamed_is_refused(settled: Api) -> None:
    assert settled.refused("GET", "/runs/none/events")[:2] == (404, "run_not_found")
    assert settled.refused("GET", "/runs/demo/events?from_round=-1")[1] == "invalid_setting"


def test_streams_end_with_the_coordinator(records: Records, plane: StandIn) -> None:
    with coordinator(records) as api:
        begin_demo(api, plane.url)
        streams_ = [Stream(api, path) for path in ("/events", "/runs/demo/events")]
        for stream in streams_:
            next(stream.events())
    for stream in streams_:  # the server is gone by now, and had waited for them
        assert all(event for event, _, _ in stream.events())
        stream.close()


def test_a_reader_that_vanishes_leaves_nothing_behind(demo: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: queue.Queue[str] = queue.Queue()

    def watched(name: str) -> Any:
        of = getattr(streams, name)

        async def stream(*arguments: Any) -> AsyncIterator[str]:
            try:
                async for one in of(*arguments):
                    yield one
            finally:
                ended.put(name)

        return stream

    for name in ("of_run", "of_everything"):
        monkeypatch.setattr(streams, name, watched(name))
    with reading(demo, "/runs/demo/events") as run, reading(demo, "/events") as everything:
        next(run.events())
        next(everything.events())
    assert {ended.get(timeout=20), ended.get(timeout=20)} == {"of_run", "of_everything"}
