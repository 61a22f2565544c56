"""Tables of figures that stand between two comments of a page."""

from __future__ import annotations

from pathlib import Path

END = "<!-- end -->"


def between(page: str, begin: str) -> str:
    """What stands there."""
    return page.partition(begin)[2].partition(END)[0].strip()


def write_between(path: Path, begin: str, content: str) -> None:
    """Put it there instead of what stands there.

    Raises:
        ValueError: when the page has no such place.
    """
    before, found, rest = path.read_text("utf-8").partition(begin)
    _, ends, after = rest.partition(END)
    if not found or not ends:
        raise ValueError(f"{path} has no '{begin}' with an '{END}' behind it")
    path.write_text(f"{before}{begin}\n\n{content}\n\n{END}{after}", "utf-8")
