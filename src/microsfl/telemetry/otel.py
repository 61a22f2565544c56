"""Spans by opentelemetry's SDK, sent as OTLP over HTTP. Only imported where an endpoint is set."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from .. import __version__
from ..core.unit import UnitKey
from ..errors import MicrosflError
from ..wire.timing import PHASES, Timing
from .traces import Ids, Spent, commit_ids, header_of, is_sampled, parent_in, unit_ids

QUEUED_SPANS = 8192
EXPORT_S = 2.0  # of one request to the collector, tries included
CLOSE_S = 3.0  # how long a process that ends waits for a collector that is slow or away

Attributes = dict[str, str | int]


class Otel:
    """See `traces.Traces`. What is exported is exported by a thread of its own."""

    def __init__(self, endpoint: str, ratio: float, role: str, instance: str | None) -> None:
        self.ratio = ratio
        about = {"service.namespace": "microsfl", "service.name": role, "service.version": __version__}
        resource = Resource.create(about if instance is None else {**about, "service.instance.id": instance})
        self._ids = _GivenIds()
        # Whether a unit is traced is decided here, by its key, before there is a span.
        self._provider = TracerProvider(ALWAYS_ON, resource, id_generator=self._ids, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(_traces_url(endpoint), timeout=EXPORT_S)
        self._spans = BatchSpanProcessor(exporter, QUEUED_SPANS, 1000)
        self._provider.add_span_processor(self._spans)
        self._tracer = self._provider.get_tracer("microsfl", __version__)

    def span(self, key: UnitKey, name: str, *, asks: bool = False) -> AbstractContextManager[str | None]:
        ids = self._of(key)
        return nullcontext() if ids is None else self._within(key, ids, name, SpanKind.CLIENT if asks else _INSIDE)

    @contextmanager
    def _within(self, key: UnitKey, ids: Ids, name: str, kind: SpanKind) -> Iterator[str]:
        one = self._begin(name, ids, _about(key), kind)
        context = one.get_span_context()
        try:
            yield header_of(Ids(context.trace_id, context.span_id))
        except BaseException as error:
            one.set_status(Status(StatusCode.ERROR, error.code if isinstance(error, MicrosflError) else repr(error)))
            raise
        finally:
            one.end()

    def unit(self, key: UnitKey, began_ns: int) -> None:
        ids = self._of(key)
        if ids is not None:
            self._first("unit", ids, _about(key), began_ns, ()).end()

    def served(self, key: UnitKey, path: str, parent: str | None, timing: Timing, spent: Sequence[Spent]) -> None:
        ids = self._of(key)
        if ids is None:
            return
        ended_ns = time.time_ns()
        at_ns = ended_ns - round(timing.seconds * 1e9)
        about = _about(key) | {"microsfl.server": timing.server, "microsfl.graph": timing.graph}
        known = {name: value for name, value in about.items() if value != ""}
        whole = self._begin(path, parent_in(parent, ids), known, SpanKind.SERVER, at_ns)
        inside = Ids(ids.trace, whole.get_span_context().span_id)
        for name in PHASES:  # sums, drawn one after the other
            lasts_ns = round(getattr(timing, name) * 1e9)
            self._begin(name, inside, {}, _INSIDE, at_ns).end(at_ns + lasts_ns)
            at_ns += lasts_ns
        for one in spent:
            self._begin(one.name, inside, {}, _INSIDE, one.began_ns).end(one.ended_ns)
        whole.end(ended_ns)

    def refused(self, key: UnitKey, path: str, parent: str | None, began_ns: int, code: str) -> None:
        ids = self._of(key)
        if ids is not None:
            one = self._begin(path, parent_in(parent, ids), _about(key), SpanKind.SERVER, began_ns)
            one.set_status(Status(StatusCode.ERROR, code))
            one.end()

    def committed(self, run: str, version: int, units: Sequence[UnitKey], began_ns: int) -> None:
        traced = [unit for unit in units if self._of(unit) is not None]
        if not traced:
            return
        ended_ns, ids = time.time_ns(), commit_ids(run, version)
        about: Attributes = {"microsfl.run": run, "microsfl.version": version, "microsfl.units": len(units)}
        self._first("commit", ids, about, began_ns, ()).end(ended_ns)
        links = [Link(_context(ids))]
        for unit in traced:
            mine = _about(unit) | {"microsfl.version": version}
            self._begin("commit", unit_ids(unit), mine, _INSIDE, began_ns, links).end(ended_ns)

    def close(self) -> None:
        closing = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def _of(self, key: UnitKey) -> Ids | None:
        """None for a unit that is not among those that are traced."""
        ids = unit_ids(key)
        return ids if is_sampled(ids.trace, self.ratio) else None

    def _begin(
        self,
        name: str,
        parent: Ids,
        about: Attributes,
        kind: SpanKind,
        at_ns: int | None = None,
        links: Sequence[Link] = (),
    ) -> api.Span:
        within = api.set_span_in_context(api.NonRecordingSpan(_context(parent)))
        return self._tracer.start_span(name, within, kind, about, links, at_ns)

    def _first(self, name: str, ids: Ids, about: Attributes, at_ns: int, links: Sequence[Link]) -> api.Span:
        """A span without a parent, under ids that everybody knows."""
        within = api.set_span_in_context(api.INVALID_SPAN)
        with self._ids.given(ids):
            return self._tracer.start_span(name, within, _INSIDE, about, links, at_ns)


class _GivenIds(RandomIdGenerator):
    """Random ids, but for a span that is started while some are given, by the same thread."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def given(self, ids: Ids) -> Iterator[None]:
        self._local.ids = ids
        try:
            yield
        finally:
            self._local.ids = None

    def generate_trace_id(self) -> int:
        ids: Ids | None = getattr(self._local, "ids", None)
        return super().generate_trace_id() if ids is None else ids.trace

    def generate_span_id(self) -> int:
        ids: Ids | None = getattr(self._local, "ids", None)
        return super().generate_span_id() if ids is None else ids.span


_INSIDE = SpanKind.INTERNAL


def _context(ids: Ids) -> SpanContext:
    return SpanContext(ids.trace, ids.span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _about(key: UnitKey) -> Attributes:
    return {f"microsfl.{name}": value for name, value in vars(key).items()}


def _traces_url(endpoint: str) -> str:
    return endpoint if endpoint.endswith("/v1/traces") else f"{endpoint}/v1/traces"
