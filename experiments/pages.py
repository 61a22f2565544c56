"""Pages with measurements: the text between their markers, and the plots that they show."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def filled(page: str, name: str, text: str) -> str:
    """The page with `text` between its markers of that name. Raises ValueError when a marker is missing."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{text}\n{end}{after}"


def copy_plot(plot: Path, to: Path) -> None:
    """In a quarter of its size, to the eye the same."""
    with Image.open(plot) as picture:
        picture.convert("RGB").quantize(96).save(to, optimize=True)
