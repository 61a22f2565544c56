"""No request that a service's own description makes up brings about a 5xx, a traceback, or no answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("schemathesis", reason="pip install 'microsfl[fuzz]'")

from tests.attacks.estate import estate
from tests.fuzz.api_target import fuzz, wrong_with
from tests.fuzz.replica_api import FILE, documents


@pytest.mark.parametrize(
    "service", ["fed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("split", "coordinator"))]
)
def test_a_few_hundred_requests(tmp_path: Path, service: str) -> None:
    with estate(tmp_path) as it:
        found = fuzz(it, service, 20 if service != "coordinator" else 3)
    assert found.broken == []
    assert found.requests > 100
    assert {status for _, status in found.statuses} >= {200, 404, 422}


@pytest.mark.slow
@pytest.mark.parametrize("service", ["split", "fed", "coordinator"])
def test_a_few_thousand_requests_of_another_kind(tmp_path: Path, service: str) -> None:
    with estate(tmp_path) as it:
        found = fuzz(it, service, 40, number=1)
    assert found.broken == []
    assert found.requests > 500


def test_what_is_wrong_is_found() -> None:
    """The test of the tests."""
    assert wrong_with(500, b"{}")
    assert wrong_with(503, b"{}")
    assert wrong_with(200, b"Traceback (most recent call last):")
    assert not wrong_with(422, b'{"error": {"code": "invalid_id", "message": "x"}}')


def test_the_description_of_the_replicas_is_as_they_are() -> None:
    """`python -m tests.fuzz.replica_api` writes it again."""
    assert json.loads(FILE.read_text()) == documents()
