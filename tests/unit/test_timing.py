"""Where time goes: the arithmetic of it, on clocks that a test moves, and the header that tells it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from microsfl.client.ledger import Ledger
from microsfl.client.traffic import SERVERS_LIMIT, Traffic
from microsfl.errors import StoreUnavailable
from microsfl.services.stopwatch import Stopwatch
from microsfl.store.objects import open_store
from microsfl.store.timed import Timed
from microsfl.wire.timing import HEADER, PHASES, Timing, read_timing

TIMING = Timing(0.001, 0.002, 0.003, 0.004, 0.005, "split-server-0", "hit")
VALUE = (
    "queue;dur=1.0000, decode;dur=2.0000, compute;dur=3.0000, store;dur=4.0000, encode;dur=5.0000, "
    "server;desc=split-server-0, graph;desc=hit"
)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float) -> None:
        self.now += seconds


# The header


def test_what_is_written_is_read() -> None:
    assert TIMING.header() == VALUE
    for timing in (TIMING, TIMING._replace(server="", graph=""), TIMING._replace(graph="miss"), Timing(0, 0, 0, 0, 0)):
        assert read_timing(timing.header()) == pytest.approx(timing)


def test_what_a_proxy_adds_is_skipped() -> None:
    assert read_timing(f"{VALUE}, cdn-cache;desc=HIT;dur=3") == pytest.approx(TIMING)


@pytest.mark.parametrize(
    "value",
    [
        None, "", "queue", "cdn-cache;desc=HIT", VALUE.removeprefix("queue;dur=1.0000, "),
        VALUE.replace("1.0000", "nan"), VALUE.replace("1.0000", "inf"),
        VALUE.replace("1.0000", "-1"), VALUE.replace("1.0000", "1e400"),
        VALUE.replace("1.0000", "9" * 20), VALUE.replace("1.0000", "1_0"), VALUE.replace("1.0000", "١"),
        f"{VALUE}, {'x' * 1000}", VALUE.replace(", ", ",\n"), "," * 1000,
    ],
)  # fmt: skip
def test_a_header_that_is_not_exactly_so_says_nothing(value: str | None) -> None:
    assert read_timing(value) is None


@pytest.mark.parametrize(
    ("old", "new", "server", "graph"),
    [
        ("split-server-0", "../../etc", "", ""),
        ("split-server-0", "a" * 65, "", ""),
        ("hit", "maybe", "split-server-0", ""),
    ],
)
def test_what_cannot_be_an_id_or_an_outcome_is_not_taken_for_one(old: str, new: str, server: str, graph: str) -> None:
    assert read_timing(VALUE.replace(old, new)) == pytest.approx(TIMING._replace(server=server, graph=graph))


# The server


def test_a_request_s_phases_add_up_to_the_time_that_it_was_there() -> None:
    clock = Clock()
    store = Timed(open_store("memory://"), clock)
    counts = {"graph_hits": 3}
    watch = Stopwatch(store, counts, clock)
    watch.server = "one"
    began = clock()
    clock.after(1)
    measured = watch.begin(since=began)
    clock.after(2)
    measured.decoded()
    clock.after(4)
    store._timed(lambda: clock.after(8))
    counts["graph_hits"] += 1
    measured.computed()
    clock.after(16)
    timing = measured.encoded()
    assert timing == Timing(1, 2, 4, 8, 16, "one", "hit")
    assert timing.seconds == clock() - began
    watch.begin().encoded()
    assert watch.figures() == {"requests": 2, **dict(zip([f"{name}_s" for name in PHASES], timing, strict=False))}


def test_what_came_of_a_graph_is_told_once() -> None:
    counts = {"graph_hits": 0, "recomputed": 5}
    watch = Stopwatch(Timed(open_store("memory://")), counts)
    first = watch.begin()
    counts["recomputed"] += 1
    assert first.encoded().graph == "miss"
    assert watch.begin().encoded().graph == ""


def test_more_store_than_time_leaves_no_negative_phase() -> None:
    """As after reads of several threads at a time."""
    clock = Clock()
    store = Timed(open_store("memory://"), clock)
    measured = Stopwatch(store, {}, clock).begin(since=clock() + 1)  # the clock of another core may be ahead
    clock.after(2)
    store.seconds += 5
    measured.computed()
    assert measured.encoded() == Timing(0, 0, 0, 2, 0)


def test_a_timed_store_does_what_its_store_does() -> None:
    store = open_store("memory://")
    timed = Timed(store)
    assert timed.create("a/1", b"x")
    assert not timed.create("a/1", b"y")
    timed.put("a/2", b"yy")
    assert (timed.get("a/1"), timed.size("a/2"), timed.exists("a/3")) == (b"x", 2, False)
    assert list(timed.list("a")) == ["a/1", "a/2"]
    timed.delete("a/1")
    assert list(store.list("a")) == ["a/2"]
    with pytest.raises(FileNotFoundError):
        timed.get("a/1")


def test_a_store_that_fails_is_counted_too() -> None:
    clock = Clock()
    timed = Timed(open_store("memory://"), clock)

    def fail() -> None:
        clock.after(3)
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        timed._timed(fail)
    assert timed.seconds == 3


# The client


def test_phases_add_up_to_the_whole_and_the_inner_ones_are_not_counted_twice() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    with ledger.phase("front"):  # before anything has begun
        clock.after(99)
    ledger.begin()
    clock.after(1)
    with ledger.phase("waiting"):
        clock.after(2)
        with ledger.phase("tail"):
            clock.after(4)
        clock.after(8)
    ledger.pause()
    clock.after(99)
    ledger.go_on()
    clock.after(16)
    assert ledger.end() == {"other": 17, "waiting": 10, "tail": 4}
    ledger.begin()
    assert ledger.end() == {"other": 0}


def test_a_phase_that_fails_ends() -> None:
    clock = Clock()
    ledger = Ledger(clock)

    def fail() -> None:
        with ledger.phase("front"):
            clock.after(1)
            raise ValueError("broken")

    ledger.begin()
    with pytest.raises(ValueError, match="broken"):
        fail()
    clock.after(2)
    assert ledger.end() == {"front": 1, "other": 2}


def test_what_makes_the_items_is_charged_and_what_uses_them_is_not() -> None:
    clock = Clock()

    def items() -> Iterator[int]:
        for number in range(3):
            clock.after(1)
            yield number

    ledger = Ledger(clock)
    ledger.begin()
    for _ in ledger.each("data", items()):
        clock.after(10)
    assert ledger.end() == {"data": 3, "other": 30}


def test_other_threads_are_not_counted() -> None:
    ledger = Ledger(Clock())
    ledger.begin()

    def work() -> None:
        with ledger.phase("tail"):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ledger.end() == {"other": 0}


def test_the_parts_of_the_requests_add_up_to_what_they_took() -> None:
    traffic = Traffic()
    traffic.add(10, 20, {HEADER: VALUE}, 0.020, encode_s=0.1, decode_s=0.2)
    traffic.add(1, 2, {HEADER: TIMING._replace(graph="miss").header()}, 0.025)
    traffic.add(0, 5, {}, 0.5)
    spent = traffic.spent()
    assert (traffic.up, traffic.down) == (11, 27)
    totals = {"requests": 3, "encode": 0.1, "server": 0.030, "wire": 0.515, "decode": 0.2}
    server = {"requests": 2, "queue": 0.002, "decode": 0.004, "compute": 0.006, "store": 0.008, "encode": 0.01}
    named = {f"split-server-0/{name}": value for name, value in {**server, "hits": 1, "misses": 1}.items()}
    assert spent == pytest.approx({**totals, **named})
    traffic.begin()
    assert traffic.spent() == {}
    assert (traffic.up, traffic.down) == (11, 27)


@pytest.mark.parametrize("value", [VALUE, "rubbish", VALUE.replace("1.0000", "999999999")])
def test_a_server_that_says_it_had_it_for_longer_than_it_took_is_not_believed(value: str) -> None:
    traffic = Traffic()
    traffic.add(1, 1, {HEADER: value}, 0.014)
    assert traffic.spent() == {"requests": 1, "encode": 0, "wire": 0.014, "server": 0, "decode": 0}


def test_servers_that_give_more_and_more_names_do_not_make_a_report_grow() -> None:
    traffic = Traffic()
    for number in range(3 * SERVERS_LIMIT):
        traffic.add(0, 0, {HEADER: TIMING._replace(server=f"s{number}").header()}, 1.0)
    spent = traffic.spent()
    assert len(spent) == 5 + 8 * (SERVERS_LIMIT + 1)
    assert spent["others/requests"] == 2 * SERVERS_LIMIT
