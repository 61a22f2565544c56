"""Laws 2 and 3 (what it says of split servers) on what `microsfl run` starts: real processes, HTTP and files."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.launched import Finished, processes, run, start, until

VARIANTS = {
    "one replica": ["servers.split=1"],
    "three replicas, requests spread at random": ["servers.split=3", "servers.spread=random"],
    "caches off": ["servers.graph_cache_mb=0", "servers.weights_cache_mb=0", "servers.spread=random"],
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
def test_law_2_gives_the_same_weights_with(settings: list[str], finished: Finished, tmp_path: Path) -> None:
    """`finished` is the same run with two replicas, sticky clients and caches on."""
    assignments = [part for setting in settings for part in ("--set", setting)]
    done = run(tmp_path / "run", "--set", "run.rounds=3", "--json", *assignments)
    assert done.process.returncode == 0, done.process.stderr
    assert done.summary["weights_sha256"] == finished.summary["weights_sha256"]
    assert done.summary["accuracy"] == finished.summary["accuracy"]


def test_law_3_a_killed_split_server_changes_nothing(finished: Finished, tmp_path: Path) -> None:
    """SIGKILL in the first round of three; the clients fail over to the other replica."""
    folder = tmp_path / "run"
    process = start(folder, "--set", "run.rounds=3", "--json")
    victim = next(one for one in processes(folder) if one["role"] == "split-server")
    os.kill(victim["pid"], signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert Finished(folder, None).summary["weights_sha256"] == finished.summary["weights_sha256"]  # type: ignore[arg-type]
    until(lambda: all(one["state"] != "up" for one in processes(folder)), "every process has ended")
    assert output
