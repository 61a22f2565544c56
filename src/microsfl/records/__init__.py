"""The coordinator's database: participants, runs, rounds and metrics. SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from .database import Participant, Records, Row, RunRecord

__all__ = ["Participant", "Records", "Row", "RunRecord"]
