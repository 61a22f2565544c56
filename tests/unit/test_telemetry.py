"""What metrics are made of: buckets, tallies, and text that names only what the catalog has."""

from __future__ import annotations

import subprocess
import sys
import threading
from math import inf

import pytest
from prometheus_client.parser import text_string_to_metric_families

from microsfl.errors import StoreUnavailable
from microsfl.store.backends import Obstore
from microsfl.store.objects import ObjectStore, open_store
from microsfl.store.retry import Failure, Retry
from microsfl.store.tally import Done, Tally
from microsfl.telemetry.catalog import METRICS
from microsfl.telemetry.exposition import Exposition
from microsfl.telemetry.histogram import REDUCE_BOUNDS, REQUEST_BOUNDS, Histogram

# Histograms


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, [1, 1, 1]), (0.5, [1, 1, 1]), (0.51, [0, 1, 1]), (2.0, [0, 1, 1]), (2.1, [0, 0, 1]), (inf, [0, 0, 1])],
)
def test_a_value_counts_up_to_each_bound_that_is_not_below_it(value: float, expected: list[int]) -> None:
    histogram = Histogram((0.5, 2.0))
    histogram.observe(value)
    assert [count for _, count in histogram.cumulative()] == expected
    assert [bound for bound, _ in histogram.cumulative()] == [0.5, 2.0, inf]


def test_bounds_grow() -> None:
    for bounds in (REQUEST_BOUNDS, REDUCE_BOUNDS):
        assert list(bounds) == sorted({*bounds})
    assert (REQUEST_BOUNDS[0], REQUEST_BOUNDS[-1]) == (0.0002, 10.0)


# The text


def test_the_parser_reads_back_what_was_written() -> None:
    histogram = Histogram((0.5, 2.0))
    for value in (0.25, 1.0, 5.0):
        histogram.observe(value)
    label = {"run": 'a"b\\c\nd'}  # no run has such a name; it would not break the text
    points = [
        ("microsfl_units_total", {}, 3),
        ("microsfl_run_loss", label, 0.5),
        ("microsfl_reduce_seconds", {}, histogram),
    ]
    body, kind = Exposition(lambda: points).render()
    assert kind.startswith("text/plain")
    families = {one.name: one for one in text_string_to_metric_families(body.decode())}
    samples = {(s.name, *s.labels.values()): s.value for one in families.values() for s in one.samples}
    assert samples["microsfl_units_total",] == 3
    assert samples["microsfl_run_loss", label["run"]] == 0.5
    assert [samples["microsfl_reduce_seconds_bucket", le] for le in ("0.5", "2.0", "+Inf")] == [1, 2, 3]
    assert (samples["microsfl_reduce_seconds_count",], samples["microsfl_reduce_seconds_sum",]) == (3, 6.25)


@pytest.mark.parametrize("point", [("microsfl_nothing", {}, 1), ("microsfl_runs", {"status": "failed"}, 1)])
def test_what_the_catalog_does_not_have_is_a_mistake(point: tuple[str, dict[str, str], float]) -> None:
    with pytest.raises(KeyError):
        Exposition(lambda: [point]).render()


def test_what_is_gone_is_not_shown_any_more() -> None:
    runs = ["a", "b"]
    exposition = Exposition(lambda: [("microsfl_run_loss", {"run": run}, 1.0) for run in runs])
    assert b'run="b"' in exposition.render()[0]
    runs.remove("b")
    assert b'run="b"' not in exposition.render()[0]


def test_names_follow_the_rules() -> None:
    for metric in METRICS:
        assert metric.name.startswith("microsfl_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert (metric.kind == "histogram") <= metric.name.endswith("_seconds"), metric.name
        assert metric.help.endswith(".")
        assert metric.of


def test_the_services_start_without_the_libraries() -> None:
    """They are imported when somebody asks for metrics, or when traces are wanted."""
    code = (
        "import sys, microsfl.services.coordinator, microsfl.services.split_server, microsfl.services.fed_server,"
        "microsfl.client.agent;"
        "print(sorted({'prometheus_client', 'opentelemetry.sdk', 'opentelemetry.exporter'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


# The store


class Flaky(Obstore):
    """Fails so many times before it does what it is asked."""

    failures = 0

    def get(self, key: str) -> bytes:
        if self.failures:
            self.failures -= 1
            raise OSError("away")
        return super().get(key)

    def failure(self, error: Exception) -> Failure:
        return Failure(str(error), passes=True)


def test_tries_and_failures_of_a_store_are_counted() -> None:
    backend = Flaky(open_store("memory://").backend.backend)  # type: ignore[attr-defined]
    store = ObjectStore(backend, "memory://", Retry(0.5, 0.001, 0.001))
    assert store.create("a/b", b"x")
    backend.failures = 2
    assert store.get("a/b") == b"x"
    store.retry = Retry(0.0)
    backend.failures = 1
    with pytest.raises(StoreUnavailable):
        store.get("a/b")
    with pytest.raises(FileNotFoundError):  # which is an answer
        store.get("a/c")
    assert not store.exists("a/c")
    found = store.tally.by_verb()
    assert found.keys() == {"create", "read", "look_up"}
    assert (found["read"].operations, found["read"].retries, found["read"].errors) == (3, 2, 1)
    assert (found["look_up"].operations, found["look_up"].errors) == (1, 0)
    assert found["read"].seconds > 0


def test_threads_count_together() -> None:
    tally = Tally()
    threads = [
        threading.Thread(target=lambda: [tally.add("look up", 0.5, 2, True) for _ in range(1000)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.by_verb() == {"look_up": Done(8000, 4000.0, 8000, 8000)}
