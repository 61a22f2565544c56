"""Secrets: what they look like, and what is kept of them."""

from __future__ import annotations

import hashlib
import secrets

BYTES = 32
PREFIX = "msfl_"  # by which scanners of repositories and logs can tell them


def new_secret() -> str:
    """256 random bits as text."""
    return PREFIX + secrets.token_urlsafe(BYTES)


def digest(secret: str) -> str:
    """sha256, hexadecimal. Enough for what is random: there is nothing to guess, unlike with a password."""
    return hashlib.sha256(secret.encode()).hexdigest()
