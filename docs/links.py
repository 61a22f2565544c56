"""A hook of MkDocs: links to files of the repository that are not pages of the site, such as a test or an example.

On GitHub a relative link leads to them. In the site they become links to the repository where `repo_url` of mkdocs.yml
names one (a branch called main), else the path in code beside the link's text.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Called by MkDocs with each page's text."""
    folder = posixpath.dirname(page.file.src_uri)
    return rewritten(markdown, folder, config.repo_url)


def rewritten(markdown: str, folder: str, repo_url: str | None) -> str:
    """The text with its links out of docs/ replaced. folder: the page's, from docs/."""

    def replaced(match: re.Match[str]) -> str:
        text, link = match.groups()
        path = outside(link, folder)
        if path is None:
            return match.group()
        if repo_url:
            return f"[{text}]({repo_url.rstrip('/')}/blob/main/{path})"
        name = path.partition("#")[0]
        return f"`{name}`" if text.strip("`") in (name, posixpath.basename(name)) else f"{text} (`{name}`)"

    # Fences stand at the odd places.
    parts = FENCE.split(markdown)
    return "".join(part if number % 2 else LINK.sub(replaced, part) for number, part in enumerate(parts))


def outside(link: str, folder: str) -> str | None:
    """Where a link leads, from the repository's root; None when it stays within docs/ or leaves the repository."""
    if "://" in link or link.startswith(("#", "/", "mailto:")):
        return None
    target = posixpath.normpath(posixpath.join("docs", folder, link))
    return None if target.startswith(("docs/", "../")) else target
