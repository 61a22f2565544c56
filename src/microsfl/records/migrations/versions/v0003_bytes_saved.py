"""Metrics say how many bytes a client did not have to send."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("metrics", Column("bytes_saved", BigInteger))
