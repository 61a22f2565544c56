"""The way from each version of the schema to the next, for alembic; `records.schema` walks it."""
