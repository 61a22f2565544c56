"""When a run ended, how its data is divided, and how often a participant came back."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Double, Integer, Text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("runs", Column("ended_at", Double))
    op.add_column("runs", Column("class_counts", Text))
    op.add_column("participants", Column("restarts", Integer))
