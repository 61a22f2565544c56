"""The dashboard: a page over the coordinator's JSON, with all that it needs in `static/`: no build step, no network."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

INDEX = "index.html"
PLOTLY = "plotly.min.js"
KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
    "woff2": "font/woff2",
}


def static_file(name: str) -> tuple[bytes, str] | None:
    """The content of a file of the page, and its media type; None when there is no such file.

    The chart library's file comes from the installed package plotly.
    """
    kind = KINDS.get(name.rpartition(".")[2])
    file = _plotly() if name == PLOTLY else _ours(name)
    return None if kind is None or file is None or not file.is_file() else (file.read_bytes(), kind)


def _ours(name: str) -> Traversable | None:
    """The folder is flat: what has a slash in its name, or begins with a dot, is none of it."""
    return None if "/" in name or "\\" in name or name.startswith(".") else resources.files(__name__) / "static" / name


def _plotly() -> Traversable | None:
    try:
        return resources.files("plotly") / "package_data" / PLOTLY
    except ModuleNotFoundError:
        return None
