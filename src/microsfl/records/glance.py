"""A look at a database by somebody who is not its coordinator: nothing is made, migrated or written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, select
from sqlalchemy.exc import DBAPIError

from ..errors import StoreUnavailable
from . import tables
from .database import RunRecord, engine_for, is_sqlite, masked, parse, reason_of
from .rows import Row
from .schema import HEAD, KNOWN, version_of

# What every version has.
RUN = ("name", "spec", "state", "revision", "created_at")
ROUND = (
    "run", "round", "ended_at", "accuracy", "accuracy_mean", "loss", "train_loss", "samples", "seconds",
    "samples_per_s",
)  # fmt: skip


@dataclass(frozen=True)
class Glance:
    """version: of the schema, None where there are no tables of microsfl's. runs: those of a database of a version that
    is known, oldest first, each with its rounds."""

    version: str | None
    runs: list[tuple[RunRecord, list[Row]]]

    @property
    def is_newest(self) -> bool:
        return self.version == HEAD

    @property
    def is_known(self) -> bool:
        """A coordinator of this version can use it, or bring it up to date."""
        return self.version is None or self.version in KNOWN


def glance(url: str) -> Glance | None:
    """What the database behind the URL has; None when it is a file that is not there.

    Raises:
        InvalidSetting: when the URL is none, or its driver is not installed.
        StoreUnavailable: when the database cannot be read.
    """
    parsed, name = parse(url), masked(url)
    if is_sqlite(parsed):
        if parsed.database in (None, "", ":memory:") or not Path(str(parsed.database)).is_file():
            return None
        # Opened by name alone, SQLite would make the file if it went away meanwhile; and a coordinator's own way to
        # open it would change its journal mode.
        file = f"file:{quote(str(Path(str(parsed.database)).absolute()))}"
        engine = create_engine(parsed.set(database=file).update_query_dict({"mode": "rw", "uri": "true"}))
    else:
        engine = engine_for(parsed, name)
    try:
        with engine.connect() as connection:
            version = version_of(connection)
            return Glance(version, _runs(connection) if version in KNOWN else [])
    except DBAPIError as error:
        raise StoreUnavailable(f"The database {name} cannot be read: {reason_of(error)}.") from None
    finally:
        engine.dispose()


def _runs(connection: Connection) -> list[tuple[RunRecord, list[Row]]]:
    about, of_rounds = tables.runs.c, tables.rounds.c
    runs = select(*(about[name] for name in RUN)).order_by(about.created_at, about.name)
    rounds = select(*(of_rounds[name] for name in ROUND)).order_by(of_rounds.round)
    records = [RunRecord(**row) for row in connection.execute(runs).mappings()]
    rows = connection.execute(rounds).mappings().all()
    return [(one, [dict(row) for row in rows if row["run"] == one.name]) for one in records]
