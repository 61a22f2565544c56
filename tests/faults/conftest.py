from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.chaos import Cluster, Outcome, cluster, spec_of


@pytest.fixture(scope="session")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Supervised processes: coordinator, fed server, three split servers, five clients in two processes."""
    with cluster(tmp_path_factory.mktemp("faults") / "run") as living:
        yield living


@pytest.fixture(scope="session")
def calm(living: Cluster) -> Outcome:
    """What the run comes to when nothing is killed."""
    return living.run(spec_of("calm"), [])
