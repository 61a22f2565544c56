"""Rounds say whose contributions and updates were outliers."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Text

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("rounds", Column("body_outliers", Text))
    op.add_column("rounds", Column("client_outliers", Text))
