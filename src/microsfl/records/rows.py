"""Rows of any table, written in what SQLite and PostgreSQL have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

Row = dict[str, Any]

# ON CONFLICT is written alike for both, but is no part of SQL.
INSERTS: dict[str, Callable[[Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def upsert(connection: Connection, table: Table, rows: Iterable[Row]) -> None:
    """Insert each row, or update the one that has its key, in as few statements as there are sets of columns."""
    alike: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        alike[tuple(row)].append(row)
    key = [column.name for column in table.primary_key]
    for columns, group in alike.items():
        insert = INSERTS[connection.dialect.name](table)
        new = {name: insert.excluded[name] for name in columns if name not in key}
        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=new), group)
