"""Who may take part, as the database has it. Secrets are kept as hashes alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from . import tables
from .rows import Row, upsert
from .trail import Entry, append

LISTS = ("acts_as", "runs")


@dataclass(frozen=True)
class Identity:
    """Who may take part, and as whom. Hashes are sha256, hexadecimal; times in UTC unix seconds."""

    id: str
    role: str
    acts_as: tuple[str, ...]
    runs: tuple[str, ...]
    created_at: float
    secret_hash: str | None = None
    next_hash: str | None = None
    revoked_at: float | None = None


@dataclass(frozen=True)
class Invitation:
    """By whose token somebody may enrol, once."""

    token_hash: str
    identity: str
    created_at: float
    expires_at: float
    used_at: float | None = None


class Identities:
    """The verbs; every one raises StoreUnavailable when the database does not do what it is asked.

    entries: what the audit trail is to say of it.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._transaction = transaction

    def all(self) -> list[Identity]:
        """By id."""
        with self._transaction() as connection:
            rows = connection.execute(select(tables.identities).order_by(tables.identities.c.id)).mappings()
            return [Identity(**{**row, **{name: tuple(json.loads(row[name])) for name in LISTS}}) for row in rows]

    def save(self, identities: Iterable[Identity], *entries: Entry) -> None:
        """Insert or replace them all in one transaction."""
        with self._transaction() as connection:
            upsert(connection, tables.identities, [_row(one) for one in identities])
            append(connection, entries)

    def invite(self, identity: Identity, invitation: Invitation, *entries: Entry) -> None:
        """Keep an identity, new or changed, and an invitation of it; earlier ones that were not used end."""
        table = tables.invitations
        with self._transaction() as connection:
            upsert(connection, tables.identities, [_row(identity)])
            connection.execute(delete(table).where(table.c.identity == identity.id, table.c.used_at.is_(None)))
            connection.execute(insert(table).values(**vars(invitation)))
            append(connection, entries)

    def revoke(self, identity: Identity, *entries: Entry) -> None:
        """Keep an identity that is revoked; an invitation of it that was not used ends."""
        table = tables.invitations
        with self._transaction() as connection:
            upsert(connection, tables.identities, [_row(identity)])
            connection.execute(delete(table).where(table.c.identity == identity.id, table.c.used_at.is_(None)))
            append(connection, entries)

    def invitation(self, token_hash: str) -> Invitation | None:
        with self._transaction() as connection:
            query = select(tables.invitations).where(tables.invitations.c.token_hash == token_hash)
            row = connection.execute(query).mappings().first()
            return None if row is None else Invitation(**row)

    def enrol(self, identity: Identity, token_hash: str, used_at: float, *entries: Entry) -> bool:
        """Keep the identity with its secret and use up the invitation, both or neither; False: it was used before."""
        table = tables.invitations
        with self._transaction() as connection:
            unused = (table.c.token_hash == token_hash) & table.c.used_at.is_(None)
            if not connection.execute(update(table).where(unused).values(used_at=used_at)).rowcount:
                return False
            upsert(connection, tables.identities, [_row(identity)])
            append(connection, entries)
            return True


def _row(identity: Identity) -> Row:
    return {**vars(identity), **{name: json.dumps(getattr(identity, name)) for name in LISTS}}
