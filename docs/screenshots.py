"""Pictures of each page of the dashboard, from a real `microsfl up` with real runs: docs/images/dashboard-*.png.

    python docs/screenshots.py

Needs a chromium, as the dashboard's tests do. A split server is killed on the way, and a run goes on while its page is
taken. Whoever runs it looks at the pictures afterwards: nothing may be cut off, overlap, lack a label or be unreadable.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402
from playwright.sync_api import Browser, Page  # noqa: E402

from microsfl.client.entitled import Ways  # noqa: E402
from microsfl.client.http import Http, json_object  # noqa: E402
from tests.browser.chromium import chromium, launched, opened, until  # noqa: E402
from tests.browser.standing import login_link, processes, up  # noqa: E402

IMAGES = ROOT / "docs" / "images"
COLOURS = 256  # of a picture: enough for pages of few colours, and files of some 100 kB
PATIENCE_S = 120
WAIT_S = 10
LIMIT_BYTES = 250_000
SIZES = {"light": (1280, 860), "dark": (1280, 860), "phone": (390, 844)}
PLACES = {"login": "#/", "runs": "#/", "new": "#/new", "participants": "#/participants", "run": "#/runs/skewed-labels"}
RUNS: dict[str, dict[str, Any]] = {
    "even-data": {"data": {"partition": "iid"}, "run": {"rounds": 12}},
    "turns": {"strategy": {"name": "sflv2"}, "run": {"rounds": 6}},
    "whole-model": {"strategy": {"name": "fedavg"}, "run": {"rounds": 8}},
    "too-hot": {"strategy": {"client_optimizer": {"name": "SGD", "lr": 1e9}}, "run": {"rounds": 5}},
    "skewed-labels": {"run": {"rounds": 300}},
}
CHARTS = "[...document.querySelectorAll('.chart')].filter((one) => one.getBoundingClientRect().top < innerHeight)"


def main() -> int:
    path = chromium()
    if path is None:
        print("There is no chromium here.", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "microsfl-data"
        with up(data) as url, launched(path) as browser:
            for name, settings in RUNS.items():
                begin(url, name, settings)
                if name != "skewed-labels":
                    wait(url, name, lambda run: run["state"] in ("finished", "failed"))
            wait(url, "skewed-labels", lambda run: run["round"] >= 12)
            kill(data, "split-server-1")
            wait(url, "skewed-labels", lambda run: run["round"] >= 30)
            for name, place in PLACES.items():
                for kind in SIZES:
                    take(browser, url, name, place, kind)
            take(browser, url, "run", PLACES["run"], "light", whole=True)
            take(browser, url, "run", PLACES["run"], "phone", whole=True)
    large = [file.name for file in IMAGES.glob("*.png") if file.stat().st_size > LIMIT_BYTES]
    print(f"Larger than {LIMIT_BYTES:,} bytes: {', '.join(large)}" if large else f"The pictures are in {IMAGES}.")
    return bool(large)


def begin(url: str, name: str, settings: dict[str, Any]) -> None:
    values = {**settings, "run": {**settings.get("run", {}), "name": name}}
    ask(url, "/api/runs", ask(url, "/api/resolve", values)["spec"])
    ask(url, f"/api/runs/{name}/start", {})


def wait(url: str, name: str, fits: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    run = ask(url, f"/api/runs/{name}")
    while not fits(run):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name}: {run['state']}, round {run['round']}")
        run = ask(url, f"/api/runs/{name}?after={run['revision']}&wait_s={WAIT_S}")


def ask(url: str, path: str, body: Any = None) -> Any:
    """As the operator that `microsfl up` makes of whoever starts it."""
    data = None if body is None else json.dumps(body).encode()
    way = Ways.of(Http(PATIENCE_S), url).coordinator
    method = "GET" if data is None else "POST"
    return json_object(way.request(method, lambda: [url], path, data, "application/json", WAIT_S))


def kill(folder: Path, name: str) -> None:
    (found,) = (one for one in processes(folder) if one["name"] == name)
    os.kill(found["pid"], signal.SIGKILL)


def take(browser: Browser, url: str, name: str, place: str, kind: str, whole: bool = False) -> None:
    width, height = SIZES[kind]
    page, complaints = opened(browser, width=width, height=height, dark=kind == "dark")
    if name != "login":
        page.goto(login_link(url))
        page.get_by_role("button", name="Log out").wait_for()
    page.goto(f"{url}/{place}")
    ready(page, name)
    if whole:
        page.set_viewport_size({"width": width, "height": page.evaluate("document.documentElement.scrollHeight")})
        ready(page, name)
        page.set_viewport_size({"width": width, "height": page.evaluate("document.documentElement.scrollHeight")})
    file = IMAGES / f"dashboard-{name}-{'whole-' if whole else ''}{kind}.png"
    page.screenshot(path=file)
    page.close()
    Image.open(file).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.name}: {file.stat().st_size:,} bytes", *complaints.found)


def ready(page: Page, name: str) -> None:
    """What is in sight is drawn."""
    if name == "run":
        until(page, f"{CHARTS}.length > 0 && {CHARTS}.every((one) => one.dataset.drawn)")
    elif name == "login":
        page.get_by_role("heading", name="Log in").wait_for()
        return
    elif name == "new":
        page.get_by_text("These settings make a run.").wait_for()
    else:
        page.locator("tbody tr").first.wait_for()
    page.wait_for_timeout(1500)  # units/s needs two signs of life


if __name__ == "__main__":
    sys.exit(main())
