"""What the coordinator remembers, as verbs. The caller passes every time in; here is no clock.

All methods block and may be called from any thread. One process writes: what two calls for the same row leave behind
is not defined across processes.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    QueuePool,
    Table,
    create_engine,
    delete,
    event,
    false,
    insert,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..errors import InvalidSetting, MicrosflError, RunExists, StoreNotWritable, StoreUnavailable
from . import schema, tables
from .identities import Identities
from .rows import Row, upsert
from .trail import Entry, Trail, append

BUSY_TIMEOUT_MS = 10_000
DRIVER = "postgresql+psycopg"
# How long a silent PostgreSQL server is waited for; libpq's own answer is for ever. The URL may say otherwise.
PATIENCE: dict[str, Any] = {"connect_timeout": 5, "tcp_user_timeout": 10_000}


@dataclass(frozen=True)
class Participant:
    """Times in UTC unix seconds."""

    id: str
    role: str
    address: str | None
    info: dict[str, Any]
    first_seen: float
    last_seen: float
    restarts: int = 0


@dataclass(frozen=True)
class RunRecord:
    """A run as it is kept; `spec`, `state` and `class_counts` are JSON text."""

    name: str
    spec: str
    state: str
    revision: int
    created_at: float
    ended_at: float | None = None
    class_counts: str | None = None


@dataclass
class Figures:
    """Since the database was opened: transactions, those that it refused or did not answer, and writes that were tried
    again. Of several threads that count at the same moment one may be missed."""

    transactions: int = 0
    errors: int = 0
    retries: int = 0


class Records:
    """The database behind a SQLAlchemy URL; its tables are made, or brought up to date.

    Raises, when it is opened:
        InvalidSetting: for a URL that names no database, one whose driver is not installed, or a database that a newer
            microsfl or another program made.
        StoreNotWritable, StoreUnavailable: when the database cannot be opened or written.
    Raises, from every method:
        StoreUnavailable: when the database does not do what it is asked.
    """

    def __init__(self, url: str) -> None:
        self.url = masked(url)
        self.figures = Figures()
        self.identities = Identities(self._transaction)
        self.trail = Trail(self._transaction)
        parsed = parse(url)
        self._engine = engine_for(parsed, self.url)
        unusable: type[MicrosflError] = StoreNotWritable if is_sqlite(parsed) else StoreUnavailable
        try:
            self._open()
        except DBAPIError as error:
            self._engine.dispose()
            raise unusable(f"The database {self.url} cannot be opened and written: {reason_of(error)}.") from None
        except MicrosflError:
            self._engine.dispose()
            raise

    def close(self) -> None:
        self._engine.dispose()

    def ping(self) -> None:
        """Ask the database for nothing, to see that it answers."""
        with self._transaction() as connection:
            connection.execute(select(1))

    def count_retry(self) -> None:
        """For whoever writes something again."""
        self.figures.retries += 1

    def participants(self) -> list[Participant]:
        """All, by id."""
        with self._transaction() as connection:
            rows = connection.execute(select(tables.participants).order_by(tables.participants.c.id)).mappings()
            return [
                Participant(**{**row, "info": json.loads(row["info"]), "restarts": row["restarts"] or 0})
                for row in rows
            ]

    def save_participants(self, participants: Iterable[Participant]) -> None:
        """Insert or replace them all in one transaction."""
        with self._transaction() as connection:
            upsert(
                connection, tables.participants, [{**vars(one), "info": json.dumps(one.info)} for one in participants]
            )

    def remove_participants(self, ids: Collection[str]) -> None:
        """Forget them; of no effect on others."""
        with self._transaction() as connection:
            connection.execute(delete(tables.participants).where(tables.participants.c.id.in_(ids)))

    def runs(self) -> list[RunRecord]:
        """All, oldest first."""
        order = (tables.runs.c.created_at, tables.runs.c.name)
        with self._transaction() as connection:
            return [RunRecord(**row) for row in connection.execute(select(tables.runs).order_by(*order)).mappings()]

    def add_run(self, run: RunRecord, entries: Iterable[Entry] = ()) -> None:
        """Keep a new run, and what the audit trail is to say of it.

        Raises:
            RunExists: when there is one of this name.
        """
        with self._transaction() as connection:
            try:
                connection.execute(insert(tables.runs).values(**vars(run)))
            except IntegrityError:
                raise RunExists(f"There is a run '{run.name}' already.") from None
            append(connection, entries)

    def save_progress(
        self,
        run: str,
        state: str,
        revision: int,
        *,
        ended_at: float | None = None,
        rounds: Mapping[int, Row] | None = None,
        metrics: Mapping[tuple[int, str], Row] | None = None,
        entries: Iterable[Entry] = (),
    ) -> None:
        """Steps of a run in one transaction: its state, when it ended if it has, and whatever columns of its rounds and
        of its metrics (by round and client) they brought, and what the audit trail is to say of them; columns that are
        not named keep their values."""
        with self._transaction() as connection:
            now = {"state": state, "revision": revision, "ended_at": ended_at}
            connection.execute(update(tables.runs).where(tables.runs.c.name == run).values(now))
            about = [{"run": run, "round": round_, **values} for round_, values in (rounds or {}).items()]
            upsert(connection, tables.rounds, about)
            told = [
                {"run": run, "round": key[0], "client": key[1], **values} for key, values in (metrics or {}).items()
            ]
            upsert(connection, tables.metrics, told)
            append(connection, entries)

    def save_class_counts(self, run: str, class_counts: Sequence[Sequence[int]]) -> None:
        """Keep how a run's data is divided: samples of each class, for each client."""
        text = json.dumps(class_counts)
        with self._transaction() as connection:
            connection.execute(update(tables.runs).where(tables.runs.c.name == run).values(class_counts=text))

    def rounds(self, run: str) -> list[Row]:
        """The run's rounds in order; keys as in the table, without `run`."""
        return self._rows_of(run, tables.rounds)

    def metrics(self, run: str, round_: int | None = None) -> list[Row]:
        """The run's (or one round's) metrics by round and client; keys as in the table, without `run`."""
        only = None if round_ is None else tables.metrics.c.round == round_
        return self._rows_of(run, tables.metrics, only)

    def metrics_between(self, run: str, first: int, end: int) -> list[Row]:
        """Those of the rounds from `first` to the one before `end`."""
        column = tables.metrics.c.round
        return self._rows_of(run, tables.metrics, (column >= first) & (column < end))

    def _rows_of(self, run: str, table: Table, only: Any = None) -> list[Row]:
        columns = [column for column in table.c if column.name != "run"]
        query = select(*columns).where(table.c.run == run).order_by(*table.primary_key)
        with self._transaction() as connection:
            rows = connection.execute(query if only is None else query.where(only)).mappings()
            return [dict(row) for row in rows]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        self.figures.transactions += 1
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            self.figures.errors += 1
            raise StoreUnavailable(f"The database {self.url} refused: {reason_of(error)}.") from error
        except PoolTimeout as error:
            self.figures.errors += 1
            raise StoreUnavailable(f"The database {self.url} did not answer in time.") from error

    def _open(self) -> None:
        schema.bring_up_to_date(self._engine, self.url)
        with self._engine.begin() as connection:
            # Changes nothing, but needs the right to write, which is better missed now than in the middle of a run.
            connection.execute(tables.runs.delete().where(false()))


def parse(url: str) -> URL:
    """The parts of a database's URL.

    Raises:
        InvalidSetting: when it is none.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidSetting(
            f"'{masked(url)}' is not a database URL; write it like sqlite:///microsfl.db or "
            "postgresql://user:password@host/database."
        ) from None
    return parsed.set(drivername=DRIVER) if parsed.drivername == "postgresql" else parsed


def engine_for(url: URL, name: str) -> Engine:
    """The connections to a database; none is opened yet.

    Args:
        name: the database, for messages.

    Raises:
        InvalidSetting: when its driver is not installed, or the URL has what the driver does not take.
    """
    try:
        engine = create_engine(url, **_engine_options(url))
    except ImportError as error:
        how = " It comes with: pip install 'microsfl[postgres]'." if url.drivername == DRIVER else ""
        raise InvalidSetting(
            f"The database URL '{name}' needs the Python package '{error.name}', which is not installed.{how}"
        ) from None
    except (ArgumentError, TypeError, ValueError) as error:
        raise InvalidSetting(f"The database URL '{name}' cannot be used: {error}.") from None
    if is_sqlite(url):
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def masked(url: str) -> str:
    """`url` without its passwords, fit for messages and logs."""
    url = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)
    return re.sub(r"(?i)((?:password|passwd|pwd)=)[^&]*", r"\1***", url)


def reason_of(error: DBAPIError) -> str:
    """The driver's first line: libpq goes on with hints."""
    lines = str(error.orig).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error.orig).__name__


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine_options(url: URL) -> dict[str, Any]:
    if url.drivername == DRIVER:
        # The ping before each use replaces connections that ended with their server.
        return {"pool_pre_ping": True, "connect_args": {**PATIENCE, **url.query}}
    if not is_sqlite(url):
        return {"pool_pre_ping": True}
    if url.database in (None, "", ":memory:"):
        # A database in memory lives and dies with its connection: one, which the threads hand to each other.
        return {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "connect_args": {"check_same_thread": False}}
    return {}


def _prepare_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    # The file stays in this mode. SQLite does not wait for a lock here; whoever has it is switching the mode, too.
    with contextlib.suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode = WAL")
    # With WAL this survives a killed process; a power cut may cost the last moments, but never the file.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
