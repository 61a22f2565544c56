"""The dashboard of a real `microsfl up`: start, watch, kill, stop, resume, download; a lost connection, lost files."""

from __future__ import annotations

import io
import shutil
import signal
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chromium import Complaints, until
from tests.browser.standing import login_link, split_server, up

ACCURACY = "[...document.querySelectorAll('.chart')].find((one) => one.ariaLabel.startsWith('Accuracy'))"
POINTS = f"({ACCURACY}?.data?.at(-1).x.length ?? 0)"


@dataclass(frozen=True)
class Dashboard:
    url: str
    folder: Path


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("up") / "data"
    with up(folder) as url:
        yield Dashboard(url, folder)


def log_in(page: Page, url: str) -> None:
    page.goto(login_link(url))
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def begin(page: Page, url: str, name: str, **settings: object) -> None:
    """Log in, start a run from the form, and wait until it trains."""
    log_in(page, url)
    page.goto(f"{url}/#/new")
    for key, value in {"run.name": name, **settings}.items():
        field = page.get_by_label(key, exact=True)
        if not field.is_visible():
            page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        field.fill(str(value))
    expect(page.get_by_text("These settings make a run.")).to_be_visible()
    page.get_by_role("button", name="Create and start").click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    until(page, f"{POINTS} >= 1")


def look_at(page: Page, part: str) -> None:
    """What is out of sight is not drawn."""
    page.get_by_role("navigation", name="Parts of this page").get_by_role("link", name=part, exact=True).click()


def grows(page: Page) -> None:
    look_at(page, "Curves")
    seen = page.evaluate(POINTS)
    until(page, f"{POINTS} > {seen}")


def state(page: Page, text: str) -> None:
    expect(page.locator(".head .mark")).to_contain_text(text)


def test_a_run_from_its_form_to_its_results(dashboard: Dashboard, page: Page) -> None:
    with split_server(dashboard.folder, dashboard.url, "extra") as extra:
        log_in(page, dashboard.url)
        page.goto(f"{dashboard.url}/#/participants")
        expect(page.get_by_role("row").filter(has_text="extra")).to_contain_text("up")
        begin(page, dashboard.url, "first", **{"run.rounds": 400})

        grows(page)
        look_at(page, "Servers")
        servers = page.get_by_role("region", name="Split servers and fed server")
        row = servers.get_by_role("row").filter(has_text="extra")
        expect(row).to_contain_text("up")

        # A split server is killed: it is marked, and the run goes on.
        extra.send_signal(signal.SIGKILL)
        expect(row).to_contain_text("down")
        grows(page)

    page.get_by_role("button", name="Stop").click()
    state(page, "stopped")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    grows(page)
    page.get_by_role("button", name="Stop").click()
    state(page, "stopped")

    with page.expect_download() as download:
        page.get_by_role("link", name="Download results").click()
    path = download.value.path()
    with zipfile.ZipFile(io.BytesIO(Path(path).read_bytes())) as archive:
        names = {Path(name).name for name in archive.namelist()}
        assert {"run.toml", "summary.json", "metrics.csv", "profile.csv"} <= names
        assert archive.testzip() is None


def test_a_finished_run_has_commits_a_partition_and_weights(dashboard: Dashboard, page: Page) -> None:
    begin(page, dashboard.url, "second", **{"run.rounds": 3})
    state(page, "finished")
    look_at(page, "Commits")
    commits = page.get_by_role("region", name="Commits, newest first")
    expect(commits.get_by_role("row")).to_have_count(1 + 3)
    commits.get_by_text("of 5 clients").first.click()
    expect(commits.get_by_text("client-03:").first).to_be_visible()
    look_at(page, "Data")
    until(page, f"{ACCURACY.replace('Accuracy', 'Training')}?.data?.length === 10")
    page.get_by_text("Weights", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="body", exact=True).click()
    content = Path(download.value.path()).read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert content[8 : 8 + length].lstrip().startswith(b"{")  # a safetensors file


def test_a_run_whose_files_were_deleted_says_so(dashboard: Dashboard, page: Page) -> None:
    begin(page, dashboard.url, "third", **{"run.rounds": 1})
    state(page, "finished")
    for area in ("body", "client"):
        shutil.rmtree(dashboard.folder / "store" / area / "runs" / "third", ignore_errors=True)
    page.reload()
    look_at(page, "Commits")
    expect(page.get_by_text("The files of run 'third' are not in the store any more")).to_be_visible()
    expect(page.locator("dl.figures")).to_contain_text("1 of 1")


@pytest.mark.slow
def test_a_lost_connection_shows_and_heals(tmp_path: Path, page: Page, complaints: list[Complaints]) -> None:
    complaints[0].expected += ["net::ERR_", "Failed to load resource"]
    folder = tmp_path / "data"
    with up(folder, "--clients", "2") as url:
        begin(page, url, "long", **{"run.rounds": 1000, "data.clients": 2})
    port = int(url.rpartition(":")[2])
    banner = page.get_by_text("Connection lost, trying again")
    expect(banner).to_be_visible()
    seen = page.evaluate(POINTS)
    with up(folder, "--clients", "2", port=port):
        # It has new keys, so the page asks who it is, and then goes on where it was.
        expect(page.get_by_text("This session is over")).to_be_visible()
        log_in(page, url)
        page.goto(f"{url}/#/runs/long")
        expect(banner).to_be_hidden()
        until(page, f"{POINTS} > {seen}")
        page.get_by_role("button", name="Stop").click()
        state(page, "stopped")
