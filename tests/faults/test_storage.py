"""The faults once more on the storage of real deployments: two buckets on S3 (moto's server), and PostgreSQL (a real
server that the tests start) for the records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from microsfl.store.objects import open_store
from tests.faults.chaos import Cluster, Outcome, acknowledged, audit, cluster, schedule, spec_of
from tests.s3_server import environment_for, s3_server

pytestmark = pytest.mark.slow  # two minutes


@pytest.fixture(scope="module")
def cloud(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A federation whose body area, client area and records are servers' of their own, in two buckets."""
    with s3_server("body-bucket", "client-bucket") as url, pytest.MonkeyPatch.context() as environment:
        for name, value in environment_for(url).items():
            environment.setenv(name, value)
        store = {"body": "s3://body-bucket/runs-of/tests", "client": "s3://client-bucket"}
        folder: Path = tmp_path_factory.mktemp("cloud") / "run"
        with cluster(folder, store=store, records={"url": postgres}) as living:
            yield living


def test_law_3_the_weights_on_s3_and_postgresql_are_those_on_files(cloud: Cluster, calm: Outcome) -> None:
    assert cloud.run(spec_of("calm"), []).hashes == calm.hashes


@pytest.mark.parametrize("seed", [1, 4])
def test_law_3_and_under_sigkill_too(seed: int, cloud: Cluster, calm: Outcome) -> None:
    spec = spec_of(f"chaos-{seed}")
    outcome = cloud.run(spec, schedule(seed))
    assert sum(outcome.kills.values()) > 0
    assert outcome.hashes == calm.hashes
    audit(outcome.commits, outcome.stored, acknowledged(spec))


def test_law_6_neither_bucket_holds_the_other_s_files(cloud: Cluster) -> None:
    keys = {area: list(open_store(cloud.federation.store_url(area)).list("runs")) for area in ("body", "client")}
    assert keys["body"]
    assert keys["client"]
    assert not [key for key in keys["body"] if "/client/" in key or "/updates/" in key]
    assert not [key for key in keys["client"] if "/body/" in key or "/gradients/" in key or "/activations/" in key]
