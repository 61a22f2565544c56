"""A look at a database by somebody who is not its coordinator: nothing is made, migrated or written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, select
from sqlalchemy.exc import DBAPIError

from ..errors import InvalidSetting, StoreUnavailable
from . import tables
from .database import RunRecord, engine_for, is_sqlite, masked, parse, reason_of
from .rows import Row
from .schema import HEAD, KNOWN, version_of
from .trail import Check, Link, head, read

TRAIL_SINCE = "0007"  # the version that has one

# What every version has.
RUN = ("name", "spec", "state", "revision", "created_at")
ROUND = (
    "run", "round", "ended_at", "accuracy", "accuracy_mean", "loss", "train_loss", "samples", "seconds",
    "samples_per_s",
)  # fmt: skip
OUTLIERS, OUTLIERS_SINCE = ("body_outliers", "client_outliers"), "0008"


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
    with looking(url) as connection:
        if connection is None:
            return None
        version = version_of(connection)
        return Glance(version, _runs(connection, version) if version in KNOWN else [])


def check_trail(url: str, wanted: str | None = None) -> Check | None:
    """Whether the audit trail in the database is whole; None when the database is a file that is not there.

    wanted: the hash of an earlier entry, to be looked for.

    Raises:
        InvalidSetting: when the URL is none, its driver is not installed, or the database has no trail.
        StoreUnavailable: when the database cannot be read.
    """
    with looking(url) as connection:
        if connection is None:
            return None
        if (version_of(connection) or "") < TRAIL_SINCE:
            raise InvalidSetting(
                f"The database {masked(url)} has no audit trail: no coordinator of this version used it."
            )
        check, said = Check(), head(connection)
        while check.broken is None and (links := read(connection, check.head.seq)):
            check.take(links, wanted)
            said = head(connection)  # entries may be added meanwhile: the one that is asked for before nothing comes
        check.end(said)
        return check


def entries(url: str, after: int) -> list[Link]:
    """The audit trail's entries after that number; raises as `check_trail`."""
    with looking(url) as connection:
        if connection is None or (version_of(connection) or "") < TRAIL_SINCE:
            raise InvalidSetting(f"The database {masked(url)} has no audit trail.")
        found: list[Link] = []
        while links := read(connection, found[-1].seq if found else after):
            found += links
        return found


@contextmanager
def looking(url: str) -> Iterator[Connection | None]:
    """A connection to the database behind the URL, for somebody who only reads; None when it is a file that is not
    there. Raises as `glance`."""
    parsed, name = parse(url), masked(url)
    if is_sqlite(parsed):
        if parsed.database in (None, "", ":memory:") or not Path(str(parsed.database)).is_file():
            yield None
            return
        # Opened by name alone, SQLite would make the file if it went away meanwhile; and a coordinator's own way to
        # open it would change its journal mode.
        file = f"file:{quote(str(Path(str(parsed.database)).absolute()))}"
        engine = create_engine(parsed.set(database=file).update_query_dict({"mode": "rw", "uri": "true"}))
    else:
        engine = engine_for(parsed, name)
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        raise StoreUnavailable(f"The database {name} cannot be read: {reason_of(error)}.") from None
    finally:
        engine.dispose()


def _runs(connection: Connection, version: str) -> list[tuple[RunRecord, list[Row]]]:
    about, of_rounds = tables.runs.c, tables.rounds.c
    runs = select(*(about[name] for name in RUN)).order_by(about.created_at, about.name)
    columns = (*ROUND, *OUTLIERS) if version >= OUTLIERS_SINCE else ROUND
    rounds = select(*(of_rounds[name] for name in columns)).order_by(of_rounds.round)
    records = [RunRecord(**row) for row in connection.execute(runs).mappings()]
    rows = connection.execute(rounds).mappings().all()
    return [(one, [dict(row) for row in rows if row["run"] == one.name]) for one in records]
