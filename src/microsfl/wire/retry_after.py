"""The header `Retry-After` of an answer (RFC 9110, section 10.2.3), as far as servers here say it: in seconds."""

from __future__ import annotations

import random

JITTER = 0.25  # of it, at random, so that not all come at once


def retry_after_s(said: str, longest_s: float) -> float:
    """Seconds until a server wants to be asked again, and a little more; 0: it says nothing that is understood here."""
    said = said.strip()
    if not (said.isascii() and said.isdecimal()):
        return 0.0
    return min(float(said[:9]), longest_s) * random.uniform(1.0, 1.0 + JITTER)
