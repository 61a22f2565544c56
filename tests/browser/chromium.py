"""A real browser for the dashboard's tests, its screenshots and its benchmark: the system's chromium."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

ENVIRONMENT = "MICROSFL_TEST_CHROMIUM"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 60_000  # generous: a busy machine is no reason to fail


def chromium() -> str | None:
    """Where it is: as the environment says, in its usual place, or on the PATH."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return given
    usual = Path("/usr/bin/chromium")
    names = ("chromium", "chromium-browser", "google-chrome")
    return str(usual) if usual.exists() else next(filter(None, map(shutil.which, names)), None)


@contextmanager
def launched(path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Complaints:
    """What a page has against itself: errors on its console, and exceptions that nobody caught.

    `expected`: parts of messages that a test brings about, as a browser's own word on a connection that is refused.
    """

    def __init__(self, page: Page) -> None:
        self.found: list[str] = []
        self.expected: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.found.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"{message.text} ({message.location.get('url')})")

    @property
    def unexpected(self) -> list[str]:
        return [one for one in self.found if not any(part in one for part in self.expected)]


def opened(browser: Browser, *, width: int = 1280, height: int = 900, dark: bool = False) -> tuple[Page, Complaints]:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    page.set_default_timeout(PATIENCE_MS)
    return page, Complaints(page)


def until(page: Page, expression: str) -> None:
    """Wait until a JavaScript expression is true. Playwright's own way needs an eval that the page's policy forbids."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"waited for: {expression}"
        page.wait_for_timeout(50)
