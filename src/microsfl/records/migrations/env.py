"""What alembic runs to migrate: on the connection that `records.schema` holds, in its transaction."""

from __future__ import annotations

import logging

from alembic import context

from microsfl.records.schema import VERSION_TABLE

# Its lines about every step belong to a command line of alembic, not into the coordinator's log.
logging.getLogger("alembic").setLevel(logging.WARNING)

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
