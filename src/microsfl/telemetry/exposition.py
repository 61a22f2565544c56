"""From figures that a process keeps anyhow to the text that Prometheus reads."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from .. import __version__
from .catalog import BY_NAME, Metric
from .histogram import Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric as Family

# (name in the catalog, its labels, value)
Point = tuple[str, Mapping[str, str], float | Histogram]


@dataclass(eq=False)
class Exposition:
    """The metrics of one process; `points` is called for each answer, so what is gone is not shown any more.

    prometheus_client is imported at the first answer: it takes as long as a short run's first round.
    """

    points: Callable[[], Iterable[Point]]

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """(body, media type), in the format that the header `Accept` asks for."""
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    @cached_property
    def registry(self) -> CollectorRegistry:
        """One of its own: a process of tests has many of them."""
        from prometheus_client import CollectorRegistry, ProcessCollector

        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        return registry

    def collect(self) -> Iterator[Family]:
        """Families in the order of the catalog; those without a value too, where they have no labels."""
        values: dict[str, list[tuple[list[str], float | Histogram]]] = {}
        for name, labels, value in self.points():
            metric = BY_NAME[name]
            values.setdefault(name, []).append(([labels[one] for one in metric.labels], value))
        return (_family(metric, values[name]) for name, metric in BY_NAME.items() if name in values)


def build_point(role: str) -> Point:
    return "microsfl_build_info", {"role": role, "version": __version__, "python": platform.python_version()}, 1


def _family(metric: Metric, values: Iterable[tuple[list[str], float | Histogram]]) -> Family:
    from prometheus_client import core

    if metric.kind == "histogram":
        histograms = core.HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in values:
            assert isinstance(value, Histogram)
            histograms.add_metric(labels, [(_bound(bound), count) for bound, count in value.cumulative()], value.sum)
        return histograms
    kind = core.CounterMetricFamily if metric.kind == "counter" else core.GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in values:
        assert not isinstance(value, Histogram)
        family.add_metric(labels, value)
    return family


def _bound(value: float) -> str:
    return "+Inf" if value == float("inf") else str(value)
