"""What operators are given: the dashboard's and the alerts' queries name only metrics, labels and values that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from microsfl.core.run_state import Status
from microsfl.services.roster import CLIENT, FED_SERVER, SPLIT_SERVER
from microsfl.telemetry.catalog import BY_NAME, METRICS
from microsfl.wire.timing import PHASES

ROOT = Path(__file__).parent.parent
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "microsfl.json").read_text())
GUIDE = (ROOT / "docs" / "guides" / "operating.md").read_text()

PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
ADDED = {"instance", "job", "le"}  # by Prometheus, and by histograms
FUNCTIONS = {"rate", "increase", "changes", "delta", "sum", "count", "histogram_quantile"}
WORDS = {"by", "on", "group_left", "and", "offset"}
VALUES = {
    "alive": {"true", "false"},
    "state": {state.value for state in Status},
    "role": {CLIENT, SPLIT_SERVER, FED_SERVER},
    "phase": set(PHASES),
}

METRIC = re.compile(r"\b(microsfl_\w+|process_\w+)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
GROUPED = re.compile(r"\b(?:by|on|group_left) \(([^)]*)\)")


def panels() -> list[dict[str, Any]]:
    return [one for one in DASHBOARD["panels"] if one["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)]
    return [rule for block in blocks for group in block.get("groups", ()) for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert found is not None
            yield variable["name"], f"sum by ({found[2]}) ({found[1]})"


def labels_of(name: str) -> set[str] | None:
    """Labels of a metric by the name that a query has for it; None when there is none such."""
    if name in PROCESS:
        return ADDED - {"le"}
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    metric = BY_NAME.get(base if base in BY_NAME and BY_NAME[base].kind == "histogram" else name)
    if metric is None or (metric.kind == "histogram") != (name != metric.name):
        return None
    return {*metric.labels, *(ADDED if name.endswith("_bucket") else ADDED - {"le"})}


def complaints(query: str) -> list[str]:
    """What a query has that does not exist."""
    found, known = [], set[str]()
    for name, matchers in METRIC.findall(query):
        labels = labels_of(name)
        if labels is None:
            found.append(f"there is no {name}")
            continue
        known |= labels
        for label, how, value in MATCHER.findall(matchers):
            if label not in labels:
                found.append(f"{name} has no {label}")
            elif how != "=~" and label in VALUES and value not in VALUES[label]:
                found.append(f"{label} is never {value}")
    grouped = {label.strip() for group in GROUPED.findall(query) for label in group.split(",") if label.strip()}
    found += [f"nothing here has {label}" for label in sorted(grouped - known)]
    rest = MATCHER.sub("", METRIC.sub("", query))
    words = set(re.findall(r"[a-z_]{2,}", re.sub(r"\[[^\]]*\]|\$\w+", "", GROUPED.sub("by", rest))))
    found += [f"{word} is no function" for word in sorted(words - FUNCTIONS - WORDS)]
    if any(query.count(a) != query.count(b) for a, b in ("()", "[]", "{}")):
        found.append("brackets do not match")
    return found


def test_queries_name_what_there_is() -> None:
    asked = list(queries())
    assert len(asked) > 50
    assert {f"{title}: {query}": wrong for title, query in asked if (wrong := complaints(query))} == {}


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("rate(microsfl_unit_total[5m])", "there is no microsfl_unit_total"),
        ("microsfl_reduce_seconds", "there is no microsfl_reduce_seconds"),
        ("microsfl_units_total_sum", "there is no microsfl_units_total_sum"),
        ('microsfl_runs{status="failed"}', "microsfl_runs has no status"),
        ('microsfl_runs{state="broken"}', "state is never broken"),
        ("sum by (run) (microsfl_runs)", "nothing here has run"),
        ("average(microsfl_runs)", "average is no function"),
        ("sum(microsfl_runs", "brackets do not match"),
    ],
)
def test_a_wrong_query_is_found(query: str, complaint: str) -> None:
    """The test of the test."""
    assert complaints(query) == [complaint]


def test_every_metric_has_its_place_on_the_dashboard_or_in_an_alert() -> None:
    text = " ".join(query for _, query in queries())
    assert {one.name for one in METRICS if one.name not in text} == set()


def test_every_panel_says_what_it_is_and_none_hides_another() -> None:
    ids = [one["id"] for one in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert all(target["legendFormat"] for target in panel["targets"])


def test_the_guide_names_the_rows_of_the_dashboard() -> None:
    rows = [one["title"] for one in DASHBOARD["panels"] if one["type"] == "row"]
    assert rows
    for row in rows:
        assert re.search(rf"^\| {row.split(' that ')[0]} \|", GUIDE, re.MULTILINE), row
    named = set(re.findall(r"\*([A-Z][a-z ]+)\*", GUIDE))
    titles = " ".join(panel["title"] for panel in panels()).lower()
    assert len(named) > 5
    assert {name for name in named if name.lower() not in titles} == set()
