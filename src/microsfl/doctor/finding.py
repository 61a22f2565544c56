"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """status: "ok"; "warning", something will work less well or not at all for some; "problem", it has to be mended.
    advice: what to do; "" where there is nothing."""

    check: str
    status: Literal["ok", "warning", "problem"]
    found: str
    advice: str = ""
