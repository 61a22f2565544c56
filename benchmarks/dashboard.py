"""What the dashboard's page of a large run costs its reader: 100 clients, 500 rounds, in a real browser.

A coordinator process serves records of a run that never was (`tests/browser/filled.py`), and a page of its dashboard is
opened. Of three things the seconds are taken, by the page's own clock:

- from the first event with data of the run to the first chart that is drawn;
- from the last event with data to the charts with all 50,000 points, while more could come;
- from a click, on "Each client", to the chart that is drawn without them.

Nobody waits with pleasure for more than two seconds, or half a second for an answer to a click.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page

from microsfl.records import Records
from tests.browser.chromium import chromium, launched, opened, until
from tests.browser.filled import Story, fill
from tests.service.control_plane import coordinator_process

from .figures import Figure

STORY = Story("big", 100, 500)
TARGET_S = 2.0
CLICK_TARGET_S = 0.5
# Notes when data comes, and when a chart is drawn: `Chart` counts that in `data-drawn`.
WATCH = """
window.seen = { data: [], charts: [] };
const Real = window.EventSource;
window.EventSource = class extends Real {
  constructor(url) {
    super(url);
    for (const name of ["rounds", "metrics"]) {
      this.addEventListener(name, () => window.seen.data.push(performance.now()));
    }
  }
};
new MutationObserver(() => window.seen.charts.push(performance.now())).observe(document, {
  subtree: true, attributes: true, attributeFilter: ["data-drawn"],
});
"""
CHART = "[...document.querySelectorAll('.chart')].find((one) => one.ariaLabel.startsWith('Accuracy'))"
POINTS = f"({CHART}?.data?.[0].x.length ?? 0)"


def measure(quick: bool) -> Iterator[Figure]:
    path = chromium()
    if path is None:
        raise RuntimeError("there is no chromium here")
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'records.db'}"
        records = Records(url)
        fill(records, STORY)
        records.close()
        with coordinator_process(url) as (_, api), launched(path) as browser:
            taken = []
            for _ in range(3 if quick else 5):
                page, _ = opened(browser)
                taken.append(_seconds(page, api.url))
                page.close()
    first, all_, click = (tuple(one) for one in zip(*taken, strict=True))
    yield Figure("dashboard, 100 x 500: s to the first chart", first, TARGET_S, at_least=False)
    yield Figure("dashboard, 100 x 500: s to all points", all_, TARGET_S, at_least=False)
    yield Figure("dashboard, 100 x 500: s from a click to its chart", click, CLICK_TARGET_S, at_least=False)


def _seconds(page: Page, url: str) -> tuple[float, float, float]:
    page.add_init_script(WATCH)
    page.goto(f"{url}/#/runs/{STORY.name}")
    until(page, f"{POINTS} === {STORY.clients * (STORY.rounds + 1)}")
    page.wait_for_timeout(1000)  # what else is drawn is drawn; nothing here is timed
    first = page.evaluate("seen.charts.find((at) => at > seen.data[0]) - seen.data[0]")
    # The last drawing may be one for the clock's sake; the one that counts is the first after the last data.
    all_ = page.evaluate("seen.charts.find((at) => at > seen.data.at(-1)) - seen.data.at(-1)")
    page.evaluate(
        f"""() => new Promise((resolve) => {{
          const chart = {CHART};
          const began = performance.now();
          new MutationObserver(() => resolve(window.clicked = performance.now() - began)).observe(chart, {{
            attributes: true, attributeFilter: ["data-drawn"],
          }});
          document.querySelector(".choices input[type=checkbox]:checked").click();
        }})"""
    )
    return first / 1000, all_ / 1000, page.evaluate("window.clicked") / 1000
