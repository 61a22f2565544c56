"""Metrics and rounds say where the time went."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Double, Text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("metrics", Column("spent", Text))
    op.add_column("metrics", Column("eval_spent", Text))
    op.add_column("rounds", Column("trained_at", Double))
    op.add_column("rounds", Column("reduce_spent", Text))
    op.add_column("rounds", Column("aggregate_spent", Text))
