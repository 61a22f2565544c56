"""The coordinator's database: participants, runs, rounds and metrics. SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from .database import Participant, Records, RunRecord
from .identities import Identity, Invitation
from .rows import Row
from .trail import Entry

__all__ = ["Entry", "Identity", "Invitation", "Participant", "Records", "Row", "RunRecord"]
