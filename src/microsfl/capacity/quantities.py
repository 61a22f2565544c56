"""Quantities with their units, as people write them, and as they are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..errors import InvalidSetting

RATES = {
    unit: factor / 8
    for unit, factor in {
        "bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9, "Tbit/s": 1e12,
        "bps": 1.0, "kbps": 1e3, "Mbps": 1e6, "Gbps": 1e9, "Tbps": 1e12,
        "B/s": 8.0, "kB/s": 8e3, "MB/s": 8e6, "GB/s": 8e9,
        "KiB/s": 8 * 2**10, "MiB/s": 8 * 2**20, "GiB/s": 8 * 2**30,
    }.items()
}  # fmt: skip
DURATIONS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
FREQUENCIES = {"/s": 1.0, "/min": 1 / 60}
MEMORIES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(\S*)\s*")


def rate(text: str) -> float:
    """Bytes a second: from 20Mbit/s, 12.5MB/s, 1Gbps."""
    return _parsed(text, RATES, "a speed", "20Mbit/s, 1Gbit/s or 12MB/s")


def duration(text: str) -> float:
    """Seconds: from 40ms, 1.5s, 2min."""
    return _parsed(text, DURATIONS, "a duration", "40ms, 1.5s or 2min", zero=True)


def frequency(text: str) -> float:
    """Per second: from 3500/s."""
    return _parsed(text, FREQUENCIES, "a frequency", "3500/s")


def _parsed(text: str, units: Mapping[str, float], what: str, examples: str, *, zero: bool = False) -> float:
    """Raises InvalidSetting, with what would be right."""
    found = NUMBER.fullmatch(text)
    if found is None:
        raise InvalidSetting(f"'{text}' is not {what}; write it like {examples}.")
    number, unit = float(found[1]), found[2]
    if not unit:
        raise InvalidSetting(f"'{text}' has no unit; write it like {examples}.")
    if unit not in units:
        same = [one for one in units if one.lower() == unit.lower()]
        hint = f" Did you mean '{found[1]}{same[0]}'?" if same else ""
        raise InvalidSetting(f"'{text}': there is no unit '{unit}' of {what}; write it like {examples}.{hint}")
    if not zero and not number:
        raise InvalidSetting(f"'{text}': {what} must be above 0.")
    value = number * units[unit]
    if not math.isfinite(value):
        raise InvalidSetting(f"'{text}' is too large.")
    return value


def shown_seconds(value: float) -> str:
    """In the unit that fits."""
    if not math.isfinite(value):
        return "never ends"
    for length, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if value >= 2 * length:
            return f"{_digits(value / length)} {unit}"
    if value >= 1 or not value:
        return f"{_digits(value)} s"
    return f"{_digits(1e3 * value)} ms" if value >= 1e-3 else f"{_digits(1e6 * value)} µs"


def shown_bytes(value: float) -> str:
    """In the decimal unit that fits."""
    for size, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{_digits(value / size)} {unit}"
    return f"{value:.0f} B"


def shown_count(value: float) -> str:
    """A number of things, which may be a mean."""
    return f"{value:,.0f}" if value >= 100 or value == round(value) else _digits(value)


def _digits(value: float) -> str:
    """Three that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
