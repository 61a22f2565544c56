"""The fork server is killed: whoever it forked goes on, and is started again without it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from microsfl.launch.forks import NOBODY_SAW
from tests.faults.chaos import Outcome, acknowledged, audit, cluster, spec_of


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is none")
def test_a_run_outlives_its_fork_server(tmp_path: Path, calm: Outcome) -> None:
    names = ("split-server-0", "fed-server", "clients-0")
    with cluster(tmp_path / "run") as own:
        forks = own.federation.processes.forks
        assert forks is not None
        assert forks.pid is not None
        before = {child.name: child.process for child in own.federation.children}
        os.kill(forks.pid, signal.SIGKILL)
        spec = spec_of("orphans")
        outcome = own.run(spec, [(0.2, names)])
        now = {child.name: child.process for child in own.federation.children}
        assert {name for name in now if now[name] is not before[name]} == set(names)
        assert {before[name].returncode for name in names} == {NOBODY_SAW}
        assert forks.pid is None
    assert outcome.hashes == calm.hashes
    audit(outcome.commits, outcome.stored, acknowledged(spec))
