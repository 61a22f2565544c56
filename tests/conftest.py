"""What tests of several folders share: one torch thread, a living federation, a real PostgreSQL server."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import create_engine, make_url, text

from tests.faults.chaos import Cluster, cluster

# Where a user's credentials and federations are: not the user's own ones.
os.environ["MICROSFL_HOME"] = _home = tempfile.mkdtemp(prefix="microsfl-home-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)

# As every service has it. Small operations on several threads crawl where other processes want the cores as well.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Supervised processes: coordinator, fed server, three split servers, five clients in two processes."""
    with cluster(tmp_path_factory.mktemp("living") / "run") as living:
        yield living


class PostgresServer:
    """A server of the test's own, on a socket in a folder of its own; it can be stopped and started again."""

    def __init__(self) -> None:
        # Not pytest's folder: the server runs as another user when the tests run as root, and sockets want short paths.
        self.folder = Path(tempfile.mkdtemp(prefix="microsfl-pg-"))
        self.start()

    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pgserver = pytest.importorskip("pgserver", reason="pgserver is not installed")
        try:
            self._server: Any = pgserver.get_server(self.folder, cleanup_mode="stop")
        except (OSError, RuntimeError, AssertionError, LookupError) as error:
            pytest.skip(f"pgserver cannot start PostgreSQL here: {error}")
        self.url: str = self._server.get_uri()

    def stop(self) -> None:
        self._server.cleanup()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> str:
    """URL of a database: `MICROSFL_TEST_POSTGRES_URL`, or one on a server that the tests start."""
    given = os.environ.get("MICROSFL_TEST_POSTGRES_URL")
    return given or str(request.getfixturevalue("postgres_server").url)


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """The same database with a schema for one test alone."""
    schema = f"microsfl_test_{uuid.uuid4().hex}"
    url = make_url(postgres).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    own = url.set(drivername="postgresql").update_query_dict({"options": f"-csearch_path={schema}"})
    yield own.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()
