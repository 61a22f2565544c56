from __future__ import annotations

import pytest

from tests.faults.chaos import Cluster, Outcome, spec_of


@pytest.fixture(scope="session")
def calm(living: Cluster) -> Outcome:
    """What the run comes to when nothing is killed."""
    return living.run(spec_of("calm"), [])
