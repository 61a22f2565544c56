"""`microsfl run` while Prometheus and a collector of traces look on: real processes, each asked for its metrics."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from microsfl.core.unit import UnitKey
from microsfl.telemetry.traces import commit_ids, unit_ids
from microsfl.trust.tokens import Audience
from tests.integration.launched import DEADLINE_S, processes, start, until
from tests.service.otlp import Collector, collector
from tests.service.shown import Shown
from tests.tokens import authorization

# For whom a token has to be, to be shown metrics.
AUDIENCES = {
    "coordinator": Audience.COORDINATOR, "split-server": Audience.BODY, "fed-server": Audience.CLIENT_SIDE,
}  # fmt: skip


def metrics_urls(folder: Path) -> list[str]:
    """Where clients say that they show their metrics."""
    lines = [line for log in (folder / "logs").glob("client*.log") for line in log.read_text().splitlines()]
    said = [json.loads(line) for line in lines if line.startswith("{")]
    return [one["address"].removesuffix("/metrics") for one in said if one["event"] == "metrics"]


WHOLE = {
    ("client", "unit"), ("client", "front"), ("client", "/v1/forward"), ("split-server", "/v1/forward"),
    ("client", "tail"), ("client", "/v1/backward"), ("split-server", "/v1/backward"), ("split-server", "contribution"),
    ("client", "front backward"), ("split-server", "commit"),
}  # fmt: skip


def whole(spans: Collector) -> UnitKey | None:
    """A unit that is there from one end to the other, by what its spans say of it."""
    for unit in [one for one in list(spans.spans) if one.name == "unit"]:
        key = UnitKey(**{name: unit.attributes[f"microsfl.{name}"] for name in ("run", "round", "client", "unit")})
        if {(one.service, one.name) for one in spans.of(unit_ids(key).trace)} >= WHOLE:
            return key
    return None


def test_metrics_and_traces_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    with collector() as spans:
        monkeypatch.setenv("MICROSFL_OTEL_ENDPOINT", spans.url)
        monkeypatch.setenv("MICROSFL_METRICS_PORT", "0")
        process = start(folder, "--set", "run.name=watched", "--set", "run.rounds=1000", "--set", "data.clients=2")
        try:
            there = {one["role"]: one["address"] for one in processes(folder) if one.get("address")}
            shown = {
                role: Shown(url, authorization(there["coordinator"], AUDIENCES[role])) for role, url in there.items()
            }
            assert shown.keys() == {"coordinator", "split-server", "fed-server"}
            for role, seen in shown.items():
                assert seen.get("build_info", role=role, **seen.build()) == 1
            assert shown["coordinator"].get("participants", role="client", alive="true") == 2
            urls = metrics_urls(folder)
            assert len(urls) == len([one for one in processes(folder) if one["role"] == "client"])
            assert sum(Shown(url).get("client_hosted") for url in urls) == 2
            until(lambda: whole(spans) is not None, "a unit's trace is whole")
            until(lambda: bool(spans.of(commit_ids("watched", 1).trace)), "the commit's own trace is there")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)
