"""What a process shows to Prometheus, read by Prometheus's own parser."""

from __future__ import annotations

from collections.abc import Mapping

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from microsfl.telemetry.catalog import metrics_of


class Shown:
    """The metrics that a URL shows now, to whoever sends these headers."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        answer = urllib3.request("GET", f"{url}/metrics", retries=False, timeout=60, headers=headers)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        self.families = list(text_string_to_metric_families(answer.data.decode()))
        samples = [sample for family in self.families for sample in family.samples]
        self.values = {(one.name, frozenset(one.labels.items())): one.value for one in samples}
        assert len(self.values) == len(samples), "a sample is there twice"

    def get(self, name: str, **labels: str) -> float:
        return self.values[f"microsfl_{name}", frozenset(labels.items())]

    def of(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        return {labels: value for (found, labels), value in self.values.items() if found == f"microsfl_{name}"}

    def check(self, role: str) -> None:
        """Every metric of the role is shown as the catalog says, and no other of ours."""
        expected = metrics_of(role)
        found = {f"{one.name}_total" if one.type == "counter" else one.name: one for one in self.families}
        assert {name for name in found if name.startswith("microsfl_")} == expected.keys()
        for name, metric in expected.items():
            assert (found[name].type, found[name].documentation) == (metric.kind, metric.help)
            for sample in found[name].samples:
                assert sample.labels.keys() - {"le"} == {*metric.labels}, sample
        for name in ("process_cpu_seconds_total", "process_resident_memory_bytes"):
            assert found[name].samples[0].value > 0
        assert self.get("build_info", role=role, **self.build()) == 1

    def build(self) -> dict[str, str]:
        [labels] = self.of("build_info")
        return {name: value for name, value in labels if name != "role"}
