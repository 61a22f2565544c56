"""Every setting of a run as a configuration file, as `microsfl config --show` prints it."""

from __future__ import annotations

import textwrap

import tomli_w

from ..spec.reference import Entry, allowed_values, settings_reference

__all__ = ["Entry", "allowed_values", "as_toml", "settings_reference"]

WIDTH = 100


def as_toml(entries: list[Entry]) -> str:
    """A configuration file with every default, and the meaning and the allowed values as comments."""
    blocks = ["# Every setting of a run with its default. Keep what you change in a file: `microsfl run CONFIG.toml`."]
    table = ""
    for entry in entries:
        head, _, key = entry.name.partition(".")
        if head != table:
            table = head
            blocks.append(f"[{table}]")
        lines = [*_comment(entry.description), *_comment(f"Allowed: {entry.allowed}."), *_assignment(table, key, entry)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _assignment(table: str, key: str, entry: Entry) -> list[str]:
    if entry.default is None:
        return [f"# {key} is not set."]
    if isinstance(entry.default, dict):
        return [f"[{table}.{key}]", *tomli_w.dumps(entry.default).splitlines()]
    return tomli_w.dumps({key: entry.default}).splitlines()


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
