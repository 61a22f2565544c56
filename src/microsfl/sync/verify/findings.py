"""What `microsfl verify` says about a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol

from ...store.verbs import Exists, Get, List


class VerifyStore(Get, Exists, List, Protocol):
    """What verifying needs of a store; it writes nothing."""


@dataclass(frozen=True)
class Finding:
    """`error`: the file is not what microsfl wrote. `note`: it may be there, or be gone, and here is why."""

    severity: Literal["error", "note"]
    run: str
    file: str
    expected: str
    found: str
    meaning: str


def read(store: Get, key: str) -> bytes | None:
    """The content, or None when the file went since it was listed."""
    try:
        return store.get(key)
    except FileNotFoundError:
        return None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
