"""The page and its files, as the coordinator serves them."""

from __future__ import annotations

import pytest

from microsfl import dashboard
from microsfl.services import pages
from tests.service.control_plane import Api


def test_the_page_and_its_files_are_served_with_a_policy(api: Api) -> None:
    answer = api.pool.request("GET", api.url + "/")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert b"microsfl" in answer.data
    again = api.pool.request("GET", api.url + "/static/index.html", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status, again.data) == (304, b"")


def test_the_chart_library_comes_from_its_package(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = api.pool.request("GET", api.url + "/static/plotly.min.js")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert len(answer.data) > 1_000_000
    monkeypatch.setattr(dashboard, "_plotly", lambda: None)
    pages._read.cache_clear()
    answer = api.pool.request("GET", api.url + "/static/plotly.min.js")
    assert answer.status == 404
    assert "pip install 'microsfl[dashboard]'" in answer.json()["error"]["message"]
    pages._read.cache_clear()


@pytest.mark.parametrize("name", ["no.js", "../__init__.py", "%2e%2e/__init__.py", ".hidden.js", "a/b.js", "%00.js"])
def test_other_files_are_not_served(api: Api, name: str) -> None:
    answer = api.pool.request("GET", f"{api.url}/static/{name}")
    assert answer.status == 404
    assert answer.json()["error"]["code"] == "no_such_path"
