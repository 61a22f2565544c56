"""Each page over a real coordinator: what it shows, in light and dark, on a phone, by keyboard, of hostile texts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from microsfl.core.run_state import Status
from microsfl.records import Records
from tests.browser.chromium import Complaints, opened, until
from tests.browser.filled import Story, commits_of, fill
from tests.service.control_plane import Api, coordinator
from tests.service.control_plane import served as over_http

HOSTILE = "<script>window.caught = 1</script><img src=x onerror='window.caught = 2'><b>bold</b>"
SMALL = Story("small", 5, 20)
FAILED = Story("failed", 3, 5, Status.FAILED, reason=f"client-01 failed: {HOSTILE}", absent=(f"failed: {HOSTILE}",))
BIG = Story("big", 100, 500)
PAGES = ("#/", "#/participants", "#/new", "#/runs/small")
REFUSED = "/api/resolve"  # a browser notes every answer with an error status
DRAWN = ".chart[data-drawn]"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    records = Records(f"sqlite:///{tmp_path_factory.mktemp('filled')}/records.db")
    for story in (SMALL, FAILED, BIG):
        fill(records, story)
    with over_http(commits_of(SMALL, FAILED, BIG)) as url, coordinator(records) as api:
        api.post("/participants", {"id": "split-0", "role": "split-server", "address": url, "info": {"units": 9000}})
        yield api
    records.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Api]:
    records = Records(f"sqlite:///{tmp_path}/records.db")
    with coordinator(records) as api:
        yield api
    records.close()


def visit(page: Page, api: Api, place: str) -> None:
    page.goto(f"{api.url}/{place}")
    expect(page.locator("h1")).to_be_visible()
    if place.startswith("#/runs/"):
        page.wait_for_selector(DRAWN)
    elif place == "#/new":
        expect(page.get_by_label("run.name")).to_be_visible()
    else:
        expect(page.locator("tbody tr").first).to_be_visible()


def unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


def by_title(title: str) -> str:
    """A chart, for `page.evaluate`."""
    return f"[...document.querySelectorAll('.chart')].find((one) => one.ariaLabel.startsWith('{title}'))"


# What there is to see


def test_without_runs_the_page_says_how_to_start_one(empty: Api, page: Page) -> None:
    page.goto(empty.url)
    expect(page.get_by_role("heading", name="No run yet")).to_be_visible()
    page.get_by_role("link", name="Start a run").click()
    expect(page.get_by_role("heading", name="New run")).to_be_visible()
    expect(page.get_by_text("No client is there yet")).to_be_visible()


def test_the_list_has_each_run_with_its_state_and_result(page: Page, served: Api) -> None:
    visit(page, served, "#/")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="small"))
    for text in ("finished", "20 of 20", "0.9678", "filesync", "digits"):
        expect(row).to_contain_text(text)
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", name="small", level=1)).to_be_visible()


def test_a_run_shows_its_figures_and_all_its_parts(page: Page, served: Api) -> None:
    visit(page, served, "#/runs/small")
    figures = page.locator("dl.figures")
    for text in ("20 of 20", "0.9678", "up,"):
        expect(figures).to_contain_text(text)
    for title in ("Accuracy", "Loss", "Timeline", "Clients", "Servers", "Commits", "Data of each client",
                  "Bytes of a round", "Seconds of a round", "Errors and absences"):  # fmt: skip
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_attached()
    page.get_by_role("link", name="Absences").click()
    absences = page.get_by_role("region", name="Errors and absences")
    expect(absences.get_by_role("row")).to_have_count(1 + 4)
    expect(absences).to_contain_text("late: no report within 5 s")
    page.get_by_text("All rounds as a table").click()
    expect(page.get_by_role("region", name="Rounds, newest first").get_by_role("row")).to_have_count(1 + 20)


def test_who_was_an_outlier_is_said_of_the_client_and_of_the_round(page: Page, served: Api) -> None:
    visit(page, served, "#/runs/small")
    clients = page.get_by_role("region", name="Clients of this run")
    expect(clients.get_by_role("row").filter(has_text="client-04")).to_contain_text("in round 18")
    expect(clients.get_by_role("row").filter(has_text="client-03")).not_to_contain_text("in round")
    expect(page.get_by_text("1 outlier, whose updates")).to_be_attached()
    page.get_by_text("All rounds as a table").click()
    rounds = page.get_by_role("region", name="Rounds, newest first")
    expect(rounds.get_by_role("row").filter(has_text="client-04")).to_have_count(6)


def test_commits_say_what_went_in_and_what_did_not(page: Page, served: Api) -> None:
    visit(page, served, "#/runs/small")
    page.get_by_role("link", name="Commits").click()
    commits = page.get_by_role("region", name="Commits, newest first")
    expect(commits.get_by_role("row")).to_have_count(1 + 20)
    commits.get_by_text("36 units of 4 clients").first.click()
    expect(commits.get_by_text("client-00: 9 units, 9 batches, 280 samples").first).to_be_visible()
    commits.get_by_text("1 unit", exact=True).first.click()
    expect(commits.get_by_text("unit 0: late: no report within 5 s").first).to_be_visible()


def test_what_can_be_done_with_a_run_follows_from_its_state(page: Page, served: Api) -> None:
    visit(page, served, "#/runs/failed")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    for name in ("Start", "Stop"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_hidden()
    visit(page, served, "#/runs/small")
    for name in ("Start", "Stop", "Resume"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_hidden()
    expect(page.get_by_role("link", name="Download results")).to_be_visible()


def test_clients_are_picked_and_hidden(page: Page, served: Api) -> None:
    visit(page, served, "#/runs/small")
    names = f"{by_title('Accuracy')}.data.map((one) => one.name)"
    assert page.evaluate(names) == ["each client", "mean of all"]
    page.get_by_text("Pick clients").click()
    page.get_by_label("client-03").check()
    until(page, f"{names}.includes('client-03')")
    page.get_by_role("checkbox", name="Each client").uncheck()
    until(page, f"!{names}.includes('each client')")
    assert page.evaluate(names) == ["client-03", "mean of all"]
    page.get_by_label("Logarithmic").check()
    until(page, f"{by_title('Loss')}.layout.yaxis.type === 'log'")


def test_the_timeline_says_who_was_late(page: Page, served: Api) -> None:
    visit(page, served, "#/runs/small/timeline")
    page.get_by_label("Last 10").check()
    kind = f"{by_title('Timeline')}.data.find((one) => one.name === 'late')"
    until(page, f"{kind}.y.length === 2")
    assert page.evaluate(f"{kind}.y") == ["client-02", "client-03"]
    page.get_by_label("All rounds", exact=True).check()
    until(page, f"{by_title('Timeline')}.data[0].type === 'heatmap'")


def test_a_run_that_does_not_exist_is_said_to_be_unknown(page: Page, served: Api, complaints: list[Complaints]) -> None:
    complaints[0].expected.append("404 (Not Found)")
    page.goto(f"{served.url}/#/runs/nobody")
    expect(page.locator("main")).to_contain_text("nobody")
    expect(page.locator(".notice")).to_be_visible()
    page.get_by_role("link", name="To the list of runs").click()
    expect(page.get_by_role("link", name="small")).to_be_visible()


def test_without_plotly_the_page_has_its_tables(page: Page, served: Api, complaints: list[Complaints]) -> None:
    complaints[0].expected.append("plotly.min.js")
    page.route("**/plotly.min.js", lambda route: route.fulfill(status=404, body=""))
    page.goto(f"{served.url}/#/runs/small")
    expect(page.get_by_text("Charts need plotly on the coordinator").first).to_be_visible()
    expect(page.get_by_role("region", name="Clients of this run")).to_contain_text("client-04")


# A hundred clients and five hundred rounds


def test_a_hundred_clients_and_five_hundred_rounds_are_all_drawn(page: Page, served: Api) -> None:
    visit(page, served, "#/runs/big")
    chart = by_title("Accuracy")
    # Each client's 500 points, and a gap after each client.
    until(page, f"{chart}.data[0].x.length === 100 * 501")
    assert page.evaluate(f"{chart}.data.length") == 2
    assert page.evaluate(f"new Set({chart}.data[0].text).size") == 101
    assert page.evaluate(f"{chart}.data[1].x.length") == 500
    lines = f"[...{chart}.querySelector('.scatterlayer .trace').querySelectorAll('path.js-line')]"
    assert page.evaluate(f"{lines}.length") == 100
    # Nothing is thinned out but what falls on the same pixel: a path has some 12 characters a point.
    assert page.evaluate(f"Math.min(...{lines}.map((one) => one.getAttribute('d').length))") > 3000
    page.get_by_text("Pick clients").click()
    page.get_by_label("client-42").check()
    until(page, f"{chart}.data.length === 3")
    page.get_by_role("link", name="Clients", exact=True).click()
    expect(page.get_by_role("region", name="Clients of this run").get_by_role("row")).to_have_count(101)
    page.get_by_role("link", name="Timeline", exact=True).click()
    page.get_by_label("All rounds", exact=True).check()
    until(page, f"{by_title('Timeline')}.data[0].z?.length === 100")
    page.get_by_role("link", name="Absences", exact=True).click()
    expect(page.get_by_text("100 absences", exact=True)).to_be_visible()


# Texts


def test_markup_in_texts_is_text(page: Page, served: Api, complaints: list[Complaints]) -> None:
    complaints[0].expected.append("/api/runs/%3Cscript%3E")  # of the run that goes by a hostile name
    served.post("/participants", {"id": "odd", "role": "client", "info": {"version": HOSTILE}})
    visit(page, served, "#/participants")
    expect(page.get_by_role("row").filter(has_text="odd")).to_contain_text(HOSTILE)
    visit(page, served, "#/")
    expect(page.get_by_role("row").filter(has_text="failed").first).to_contain_text(HOSTILE)
    visit(page, served, "#/runs/failed")
    page.get_by_role("link", name="Absences").click()
    expect(page.get_by_role("region", name="Errors and absences")).to_contain_text(f"failed: {HOSTILE}")
    page.get_by_role("link", name="Timeline").click()
    page.get_by_label("Last 10").check()
    until(page, f"{by_title('Timeline')}.data.find((one) => one.name === 'left out')?.y.length === 1")
    timeline = page.get_by_role("img", name="Timeline of the clients")
    box = timeline.locator(".bars path").last.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
    expect(timeline.locator(".hoverlayer")).to_contain_text("<b>bold</b>")
    page.goto(f"{served.url}/#/runs/{HOSTILE}")
    expect(page.locator("h1")).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.caught") is None


def test_the_form_says_what_the_command_line_says(page: Page, served: Api, complaints: list[Complaints]) -> None:
    complaints[0].expected.append(REFUSED)
    visit(page, served, "#/new")
    for key, value in (("run.rounds", "0"), ("data.alpha", "-1"), ("model.name", "nonet"), ("run.name", "a b")):
        command = [sys.executable, "-m", "microsfl", "config", "--set", f"{key}={value}"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        sentence = said.strip().removeprefix("microsfl: error: ")
        assert key in sentence, said
        field = page.get_by_label(key, exact=True)
        before = field.input_value()
        field.fill(value)
        error = page.locator(f"[id='field-{key}-error']")
        expect(error).to_have_text(sentence)
        expect(field).to_have_attribute("aria-invalid", "true")
        field.fill(before)
        expect(error).to_be_hidden()
    expect(page.get_by_text("These settings make a run.")).to_be_visible()


def test_the_form_sends_nothing_that_is_wrong(page: Page, served: Api, complaints: list[Complaints]) -> None:
    complaints[0].expected.append(REFUSED)
    before = len(served.get("/runs")["runs"])
    visit(page, served, "#/new")
    page.get_by_label("run.rounds", exact=True).fill("many")
    page.get_by_role("button", name="Create and start").click()
    expect(page.get_by_label("run.rounds", exact=True)).to_be_focused()
    expect(page.locator("[id='field-run.rounds-error']")).to_contain_text("many")
    assert len(served.get("/runs")["runs"]) == before


# Everybody


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("place", PAGES)
def test_axe_finds_nothing(browser: Browser, served: Api, place: str, dark: bool) -> None:
    page, heard = opened(browser, dark=dark)
    visit(page, served, place)
    unfold(page)
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    page.set_viewport_size({"width": 360, "height": 740})
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    assert heard.unexpected == []
    page.close()


@pytest.mark.parametrize("place", PAGES)
def test_a_phone_s_width_is_enough(browser: Browser, served: Api, place: str) -> None:
    page, heard = opened(browser, width=360, height=740)
    visit(page, served, place)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for name in ("Runs", "Participants", "New run"):
        expect(page.get_by_role("navigation", name="Pages").get_by_role("link", name=name)).to_be_in_viewport(ratio=1)
    assert heard.unexpected == []
    page.close()


def test_everything_is_reached_by_keyboard(page: Page, served: Api) -> None:
    visit(page, served, "#/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="New run").last).to_be_focused()
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_label("run.name")).to_be_visible()
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {"field-run.name", "field-strategy.name", "Create and start"} <= reached


def test_the_colours_are_as_the_system_has_them_until_somebody_chooses(page: Page, served: Api) -> None:
    visit(page, served, "#/")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.get_by_role("button", name="Switch to light colours").press("Enter")
    assert page.evaluate(ground) == light
    page.reload()
    assert page.evaluate(ground) == light
