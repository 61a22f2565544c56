from __future__ import annotations

import pytest

from tests.integration.launched import Finished, run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One short run on digits for all the tests that only look at what it left."""
    done = run(tmp_path_factory.mktemp("finished") / "run", "--set", "run.rounds=3", "--json")
    assert done.process.returncode == 0, done.process.stderr
    return done
