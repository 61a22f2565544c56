"""Who may take part: identities and the invitations by which they enrol."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Double, String, Text

revision = "0006"
down_revision = "0005"

ID = String(64)


def upgrade() -> None:
    op.create_table(
        "identities",
        Column("id", ID, primary_key=True),
        Column("role", String(16), nullable=False),
        Column("acts_as", Text, nullable=False),
        Column("runs", Text, nullable=False),
        Column("secret_hash", String(64)),
        Column("next_hash", String(64)),
        Column("created_at", Double, nullable=False),
        Column("revoked_at", Double),
    )
    op.create_table(
        "invitations",
        Column("token_hash", String(64), primary_key=True),
        Column("identity", ID, nullable=False),
        Column("created_at", Double, nullable=False),
        Column("expires_at", Double, nullable=False),
        Column("used_at", Double),
    )
