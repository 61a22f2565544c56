"""Fixtures of the control plane's tests: a coordinator over real HTTP, with a stand-in for the data plane around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from microsfl.records import Records
from tests.service.control_plane import Api, StandIn, begin_demo, coordinator, served


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(f"sqlite:///{tmp_path}/records.db")
    yield opened
    opened.close()


@pytest.fixture
def api(records: Records) -> Iterator[Api]:
    with coordinator(records) as api:
        yield api


@pytest.fixture
def plane() -> Iterator[StandIn]:
    stand_in = StandIn()
    with served(stand_in.app) as stand_in.url:
        yield stand_in


@pytest.fixture
def demo(api: Api, plane: StandIn) -> Api:
    begin_demo(api, plane.url)
    return api


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One coordinator with a started run, for all the requests that must change nothing."""
    records, plane = Records(f"sqlite:///{tmp_path_factory.mktemp('settled')}/records.db"), StandIn()
    # The clock stands still, or a lease might end in between, which is a change too.
    with served(plane.app) as url, coordinator(records, clock=lambda: 1000.0) as api:
        begin_demo(api, url)
        before = everything(api)
        yield api
        assert everything(api) == before
    records.close()


def everything(api: Api) -> list[object]:
    return [api.get(path) for path in ("/participants", "/runs", "/runs/demo/rounds", "/runs/demo/metrics")]
