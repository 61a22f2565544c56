"""The dashboard's login: by credential and by link, what a viewer sees, and what becomes of a session that ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from microsfl.core.run_state import Status
from microsfl.records import Records
from tests.browser.chromium import Complaints, opened, until
from tests.browser.filled import Story, fill
from tests.service.federated import Site, federated

SMALL = Story("small", 3, 5)
WAITING = Story("waiting", 3, 5, Status.FAILED, reason="nobody came")
# A browser notes every answer with an error status. The last one is of the servers' commits: there is no server.
EXPECTED = ("401 (Unauthorized)", "/api/session", "503 (Service Unavailable)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    records = Records(f"sqlite:///{folder}/records.db")
    for story in (SMALL, WAITING):
        fill(records, story)
    records.close()
    with federated(folder) as site:
        yield site


@pytest.fixture
def page(page: Page, complaints: list[Complaints]) -> Page:
    complaints[0].expected += EXPECTED
    return page


def log_in(page: Page, site: Site, name: str, place: str = "#/") -> None:
    page.goto(f"{site.url}/{place}")
    page.get_by_label("Id", exact=True).fill(name)
    page.get_by_label("Secret").fill(site.secrets[name])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def test_nothing_is_shown_before_somebody_logs_in(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/#/runs/small")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    expect(page.get_by_label("Id", exact=True)).to_be_focused()
    expect(page.get_by_role("navigation", name="Pages").get_by_role("link")).to_have_count(0)
    page.get_by_label("Id", exact=True).fill("operator")
    page.keyboard.press("Tab")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("There is no such credential, or it was revoked.")
    expect(page.get_by_label("Secret")).to_be_focused()
    page.get_by_label("Secret").fill("")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("The secret is missing.")
    # A credential that is no person's is not for the dashboard.
    page.get_by_label("Id", exact=True).fill("client")
    page.get_by_label("Secret").fill(site.secrets["client"])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("The dashboard is for operators and viewers")


def test_an_operator_logs_in_where_it_wanted_to_go_and_out_again(page: Page, site: Site) -> None:
    log_in(page, site, "operator", "#/runs/waiting")
    expect(page.get_by_role("heading", name="waiting", level=1)).to_be_visible()
    expect(page.locator("#name")).to_have_text("operator")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    expect(page.get_by_text("Weights", exact=True)).to_be_visible()
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert site.secrets["operator"] not in kept
    assert cookie["value"] not in kept
    page.reload()
    expect(page.get_by_role("heading", name="waiting", level=1)).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("You are logged out.")).to_be_visible()
    assert page.context.cookies() == []
    page.reload()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_a_viewer_sees_everything_and_can_change_nothing(page: Page, site: Site) -> None:
    log_in(page, site, "viewer")
    expect(page.get_by_role("link", name="small", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="New run")).to_have_count(0)
    page.goto(f"{site.url}/#/runs/waiting")
    expect(page.get_by_role("heading", name="waiting", level=1)).to_be_visible()
    expect(page.get_by_role("link", name="Download results")).to_be_visible()
    for name in ("Start", "Stop", "Resume"):
        expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    expect(page.get_by_text("Weights", exact=True)).to_have_count(0)
    page.goto(f"{site.url}/#/new")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()


@pytest.mark.parametrize("place", ["#/", "#/runs/small"])
def test_a_session_that_is_revoked_leads_back_to_the_login(page: Page, site: Site, place: str) -> None:
    name = "guest" + place.count("s") * "s"
    site.enrol(name, "viewer")
    log_in(page, site, name, place)
    title = page.locator("h1").inner_text()
    site.as_("operator").post(f"/identities/{name}/revoke")
    # Nobody touches the page: its stream of events ends, and it asks why.
    expect(page.get_by_role("status").filter(has_text="This session is over")).to_be_visible()
    expect(page.get_by_role("navigation", name="Pages").get_by_role("link")).to_have_count(0)
    site.enrol(name, "viewer")
    page.get_by_label("Id", exact=True).fill(name)
    page.get_by_label("Secret").fill(site.secrets[name])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()
    expect(page.locator("tbody tr").first).to_be_attached()  # events come again
    expect(page.get_by_text("Connection lost")).to_be_hidden()


def test_a_link_logs_in_once_and_is_nowhere_afterwards(browser: Browser, page: Page, site: Site) -> None:
    code = site.as_("operator").post("/login-links")["code"]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.url}/#login={code}")
    expect(page.locator("#name")).to_have_text("operator")
    expect(page.get_by_role("link", name="small", exact=True)).to_be_visible()
    assert page.url == f"{site.url}/#/"
    assert not any(code in url for url in asked)
    page.goto(f"{site.url}/#/participants")
    page.go_back()
    page.go_back()
    assert code not in page.url
    other, heard = opened(browser)
    heard.expected += EXPECTED
    other.goto(f"{site.url}/#login={code}")
    expect(other.get_by_role("status").filter(has_text="This link was used before, or is over")).to_be_visible()
    assert heard.unexpected == []
    other.close()


def test_a_link_that_is_opened_where_the_page_is_already_logs_in(page: Page, site: Site) -> None:
    page.goto(site.url)
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    code = site.as_("operator").post("/login-links")["code"]
    page.evaluate(f"location.hash = '#login={code}'")
    expect(page.locator("#name")).to_have_text("operator")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_before_and_after_the_login(browser: Browser, site: Site, dark: bool) -> None:
    page, heard = opened(browser, dark=dark)
    heard.expected += EXPECTED
    page.goto(site.url)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    for width, height in ((1280, 900), (360, 740)):
        page.set_viewport_size({"width": width, "height": height})
        assert _violations(page) == []
        until(page, f"document.documentElement.scrollWidth === {width}")
    log_in(page, site, "operator")
    for width, height in ((1280, 900), (360, 740)):
        page.set_viewport_size({"width": width, "height": height})
        assert _violations(page) == []
        until(page, f"document.documentElement.scrollWidth === {width}")
        expect(page.get_by_role("button", name="Log out")).to_be_in_viewport(ratio=1)
    assert heard.unexpected == []
    page.close()


def _violations(page: Page) -> list[tuple[str, list[str]]]:
    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
