"""Every code block of README and docs is done as it says, or says itself why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from microsfl.errors import InputError
from tests.docs.blocks import Block, Reader, alike, blocks_of, free_ports, missing

ROOT = Path(__file__).parent.parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
}
SLOW = {
    "docs/tutorial.md", "docs/quickstart.md", "docs/guides/own-data.md", "docs/guides/own-model.md",
    "docs/guides/terminal.md", "docs/guides/tracking.md", "docs/guides/capacity.md",
}  # fmt: skip
# How many blocks of a page are not run. One more or one fewer is to be noticed.
NOT_RUN = {
    "README.md": 5,
    "CONTRIBUTING.md": 1,
    "docs/concepts/wire-formats.md": 2,
    "docs/guides/comparing.md": 1,
    "docs/guides/containers.md": 4,
    "docs/guides/dashboard.md": 1,
    "docs/guides/kubernetes.md": 4,
    "docs/guides/many-machines.md": 7,
    "docs/guides/operating.md": 3,
    "docs/guides/privacy.md": 3,
    "docs/guides/ray.md": 5,
    "docs/guides/security.md": 12,
    "docs/guides/store-maintenance.md": 2,
    "docs/guides/terminal.md": 1,
    "docs/quickstart.md": 1,
    "docs/results/mnist.md": 1,
    "docs/results/shards.md": 1,
}
PORT = re.compile(r"(?:--port |:)(\d{4})\b")


def page_of(name: str) -> list[Block]:
    return blocks_of(PAGES[name].read_text("utf-8"))


WITH_BLOCKS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in PAGES
    if any("not run" not in block.comments for block in page_of(name))
]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    try:
        yield reader
    finally:
        reader.leave()


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_the_page_does_what_it_says(name: str, reader: Reader) -> None:
    blocks = page_of(name)
    typed = "\n".join(block.text for block in blocks if block.language == "sh")
    reader.ports = free_ports(sorted(set(PORT.findall(typed))))
    for block in blocks:
        reader.follow(block)


def test_what_is_not_run_says_why_and_is_counted() -> None:
    left_out = {name: [b for b in page_of(name) if "not run" in b.comments] for name in PAGES}
    assert {name: len(found) for name, found in left_out.items() if found} == NOT_RUN
    assert all(block.comments["not run"] for found in left_out.values() for block in found)


@pytest.mark.parametrize("name", ["docs/quickstart.md", "docs/tutorial.md"])
def test_a_newcomer_s_pages_are_run_but_for_the_installation(name: str) -> None:
    reasons = [block.comments["not run"] for block in page_of(name) if "not run" in block.comments]
    assert set(reasons) <= {"installation"}
    assert {"sh", "python", "text"} <= {block.language for block in page_of(name)}


# The tests of the tests: a page that does not do what it says is found.


def test_blocks_and_their_comments_are_read() -> None:
    page = "A\n\n<!-- not run: it takes hours -->\n```sh\nmake\n```\n\n```python\n# a.py\nx = 1\n```\n"
    assert blocks_of(page) == [
        Block("sh", "make\n", {"not run": "it takes hours"}, 4),
        Block("python", "# a.py\nx = 1\n", {}, 8),
    ]
    assert blocks_of("<!-- keeps running -->\n```sh\nx\n```\n")[0].comments == {"keeps running": ""}
    assert blocks_of(page)[1].file == "a.py"


@pytest.mark.parametrize(
    "page",
    [
        "```sh\ntrue\nfalse\n```",
        "```python\nassert False\n```",
        "```toml\n[run]\nspeed = 1\n```",
        "```json\n{\n```",
        "```rust\nlet x = 1;\n```",
        "```sh\necho accuracy 0.5\n```\n\n```text\naccuracy 0.7\n```",
        "```python\n# a.py\nx = 1\n```\n\n```diff\n- x = 2\n+ x = 3\n```",
        "<!-- keeps running -->\n```sh\necho no\n```",
    ],
)
def test_a_block_that_does_not_hold_is_found(page: str, reader: Reader) -> None:
    *before, last = blocks_of(page)
    for block in before:
        reader.follow(block)
    with pytest.raises((AssertionError, InputError, ValueError)):
        reader.follow(last)


def test_what_a_page_saves_and_changes_is_what_the_next_block_sees(reader: Reader) -> None:
    page = (
        "```python\n# kept_by_the_page.py\nx = 1\n```\n\n```diff\n- x = 1\n+ x = 2\n```\n\n"
        "```python\nfrom kept_by_the_page import x\nprint('x is', x)\n```\n\n```text\nx is 2\n```\n\n"
        "```sh\npython -c 'from kept_by_the_page import x; assert x == 2'\n```"
    )
    for block in blocks_of(page):
        reader.follow(block)


def test_numbers_may_differ_but_words_and_accuracies_not() -> None:
    assert alike("  client-00   222 0.8", "client-00 7 0.9")
    assert not alike("client-00", "clients")
    assert alike("accuracy     0.9577 …", "accuracy 0.9012 (mean over clients 0.1)")
    assert not alike("accuracy 0.9577 …", "accuracy 0.8012 (mean)")
    assert missing("a\n…\nc 1", "a\nb\nc 2\n") is None
    assert missing("b\na", "a\nb\n") == "missing: a"
