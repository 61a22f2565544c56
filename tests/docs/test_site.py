"""The docs site: built strictly, complete, and loading nothing from elsewhere."""

from __future__ import annotations

import html.parser
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import microsfl

ROOT = Path(__file__).parent.parent.parent
pytest.importorskip("mkdocs", reason="the extra docs is not installed")

LOADING = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}


class Page(html.parser.HTMLParser):
    """What a page loads by itself, where its links lead, and its ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (tag, name) in LOADING and ("rel", "canonical") not in attrs:
                self.loads.append(value)
            elif value and (tag, name) == ("a", "href"):
                self.links.append(value)
            elif value and name == "id":
                self.ids.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    source = str(Path(microsfl.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": source, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}


def test_every_page_of_docs_is_in_the_site(site: Path) -> None:
    expected = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {path.relative_to(site) for path in site.rglob("*.html")} - {Path("404.html")} == expected
    assert not list(site.rglob("*.py"))


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    found = {str(path.relative_to(site)): page.loads for path, page in pages(site).items()}
    assert len(found) > 20
    assert {name: outside for name, loads in found.items() if (outside := [one for one in loads if "//" in one])} == {}
    styles = [*site.rglob("*.css")]
    assert styles
    assert [style for style in styles if "url(http" in style.read_text() or "@import" in style.read_text()] == []


def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    found = {path.resolve(): page for path, page in pages(site).items() if path.name != "404.html"}
    lost = []
    for path, page in found.items():
        for link in page.links:
            file, _, anchor = link.partition("#")
            if "://" in link or link.startswith("mailto:"):
                continue
            target = (path.parent / file).resolve() if file not in ("", ".") else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (anchor and target in found and anchor not in found[target].ids):
                lost.append(f"{path.relative_to(site)}: {link}")
    assert lost == []


def test_the_reference_has_what_the_package_offers(site: Path) -> None:
    ids = Page((site / "reference" / "python.html").read_text("utf-8")).ids
    offered = {f"microsfl.{name}" for name in microsfl.__all__ if not name.startswith("_")}
    assert offered <= ids


def hook() -> Any:
    spec = importlib.util.spec_from_file_location("links", ROOT / "docs" / "links.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "without", "with_repository"),
    [
        ("[a](../x.md#y)", "[a](../x.md#y)", "[a](../x.md#y)"),
        ("[a](#y)", "[a](#y)", "[a](#y)"),
        ("[a](https://b/c)", "[a](https://b/c)", "[a](https://b/c)"),
        ("![a](../../b.png)", "![a](../../b.png)", "![a](../../b.png)"),
        ("[test](../../tests/t.py)", "test (`tests/t.py`)", "[test](https://h/r/blob/main/tests/t.py)"),
        ("[t.py](../../tests/t.py)", "`tests/t.py`", "[t.py](https://h/r/blob/main/tests/t.py)"),
        ("```\n[a](../../b.py)\n```", "```\n[a](../../b.py)\n```", "```\n[a](../../b.py)\n```"),
    ],
)
def test_links_out_of_the_site_become_links_to_the_repository_or_code(
    text: str, without: str, with_repository: str
) -> None:
    module = hook()
    assert module.rewritten(text, "concepts", None) == without
    assert module.rewritten(text, "concepts", "https://h/r/") == with_repository
