from __future__ import annotations

from collections.abc import Iterator

import pytest

from microsfl.launch.forks import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks() as found:
        yield found
