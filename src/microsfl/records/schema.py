"""The version of the database's schema: brought up to date when the coordinator starts, by whoever is first.

A new version is a file in `migrations/versions` and its number in `KNOWN`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, func, inspect, select, table, text
from sqlalchemy.sql import column

from ..errors import InvalidSetting

KNOWN = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
HEAD = KNOWN[-1]
# Not alembic's usual name: a PostgreSQL database may well be shared with another program that migrates with alembic.
VERSION_TABLE = "microsfl_version"
LOCK = 0x6D6963726F73666C  # "microsfl": what PostgreSQL's advisory lock goes by


def bring_up_to_date(engine: Engine, name: str) -> None:
    """Create the tables, or migrate them to `HEAD`; several processes may do so at once.

    Args:
        name: the database, for messages.

    Raises:
        InvalidSetting: when a newer microsfl migrated the database, or its tables are somebody else's. Nothing has
            changed then.
    """
    with _alone(engine) as connection:
        found = version_of(connection)
        if found == HEAD:
            return
        if found is not None and found not in KNOWN:
            raise InvalidSetting(
                f"The database {name} has schema version {found}, and this microsfl knows versions up to {HEAD}: use "
                "a newer microsfl, or another database. Nothing was changed."
            )
        _migrate(connection, adopt=found is None and _has_first_tables(connection, name))


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction that only one process has at a time; the others wait for its end."""
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
            yield connection
        return
    # Python's driver would begin the transaction too late, after the first look, and end it before each CREATE TABLE.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("BEGIN IMMEDIATE"))
        try:
            yield connection
        except BaseException:
            connection.execute(text("ROLLBACK"))
            raise
        connection.execute(text("COMMIT"))


def version_of(connection: Connection) -> str | None:
    """The version that the database has; None: it has no tables of this program's, or ones from before versions."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar()


def _has_first_tables(connection: Connection, name: str) -> bool:
    """True for a database from before it had versions, whose tables are those of version 0001."""
    from .migrations.versions.v0001_first_tables import metadata

    inspector = inspect(connection)
    there = {one: {c["name"] for c in inspector.get_columns(one)} for one in inspector.get_table_names()}
    ours = there.keys() & metadata.tables.keys()
    for one in sorted(ours):
        missing = sorted(set(metadata.tables[one].columns.keys()) - there[one])
        if missing:
            raise InvalidSetting(
                f"The database {name} has a table '{one}' that is not microsfl's: it has no column '{missing[0]}'. "
                "Use another database. Nothing was changed."
            )
    if ours and ours != metadata.tables.keys():
        raise InvalidSetting(
            f"The database {name} has a table '{min(ours)}' and not the others of microsfl: it is somebody else's, "
            "or a part of it is lost. Use another database. Nothing was changed."
        )
    return bool(ours)


def _migrate(connection: Connection, *, adopt: bool) -> None:
    """From whatever version there is to `HEAD`; `adopt`: the tables of version 0001 are there without a number."""
    # Imported here: it takes 0.1 s, and a database that is up to date does without it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "microsfl.records:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if adopt:
        command.stamp(config, KNOWN[0])
    command.upgrade(config, HEAD)
