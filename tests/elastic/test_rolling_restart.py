"""Every replica is drained, ended and started again while a run goes on: nobody sees a failure, and no bit changes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from microsfl.launch.forks import Forks
from tests.elastic.estate import Estate, tiny, wait

pytestmark = pytest.mark.slow

CLIENTS, REPLICAS, ROUNDS = 3, 3, 60


def test_a_rolling_restart_of_all_replicas(forks: Forks, tmp_path: Path) -> None:
    with Estate(tmp_path / "estate", forks, REPLICAS, CLIENTS) as estate:
        estate.start(*estate.names())
        estate.ready(*estate.names())
        rolling, calm = tiny("rolling", ROUNDS, CLIENTS), tiny("calm", ROUNDS, CLIENTS)
        control = estate.control("rolling")
        control.create(rolling)
        control.start()
        for name in estate.split:
            before = wait(partial(estate.server, name), lambda one: one["info"]["units"] > 0)
            assert estate.end(name) == 0
            assert estate.server(name)["doing"] == "about to end"
            estate.start(name)
            estate.ready(name)
            # It takes part again, before the next one ends.
            wait(
                partial(estate.server, name),
                lambda one, was=before: one["info"]["process"] != was["info"]["process"] and one["info"]["units"] > 0,
            )
        assert control.run("rolling")["state"] == "running", "the run was over before the last replica was back"
        hashes = estate.finished(rolling)
        assert {
            one: estate.metric(one, "microsfl_client_failed_tries_total") for one in estate.clients
        } == dict.fromkeys(estate.clients, 0.0)
        assert {estate.metric(one, "microsfl_client_requests_total") > ROUNDS for one in estate.clients} == {True}
        control = estate.control("calm")
        control.create(calm)
        control.start()
        assert estate.finished(calm) == hashes
