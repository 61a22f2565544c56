"""One federation for all attacks of a file: none of them may have changed anything of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.estate import Estate, estate


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    with estate(tmp_path_factory.mktemp("estate")) as it:
        yield it


@pytest.fixture
def unchanged(attacked: Estate) -> Iterator[Estate]:
    """The federation, of whose stores and database the test must change nothing."""
    before = attacked.kept()
    yield attacked
    assert attacked.kept() == before
