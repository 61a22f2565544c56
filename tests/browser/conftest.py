"""Fixtures of the dashboard's tests: a browser, and a page that must have nothing against itself in the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import ENVIRONMENT, PATIENCE_MS, Complaints, chromium, launched, opened


# Not of the whole session: while it is open, this thread has an event loop, which other tests would stumble over.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip(f"there is no chromium here; {ENVIRONMENT} says where one is")
    expect.set_options(timeout=PATIENCE_MS)
    with launched(path) as browser:
        yield browser


@pytest.fixture
def complaints() -> list[Complaints]:
    return []


@pytest.fixture
def page(browser: Browser, complaints: list[Complaints]) -> Iterator[Page]:
    page, heard = opened(browser)
    complaints.append(heard)
    yield page
    page.close()
    assert heard.unexpected == []
