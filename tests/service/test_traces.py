"""One unit from the client to the commit, as a collector sees it; and that nothing of it is there when it is off."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from microsfl.client.choice import Choice
from microsfl.client.http import Http
from microsfl.client.trainer import Task, Trainer
from microsfl.client.transport import FedServer, SplitServers
from microsfl.config import FedServerSettings, SplitServerSettings
from microsfl.core.unit import UnitKey
from microsfl.errors import InvalidSetting, RunNotFound
from microsfl.services import fed_server, split_server
from microsfl.services.replica import create_app
from microsfl.spec import RunSpec
from microsfl.store.objects import ObjectStore, open_store
from microsfl.telemetry.opening import open_traces
from microsfl.telemetry.traces import Ids, Traces, commit_ids, header_of, is_sampled, parent_in, span, unit_ids
from microsfl.wire.messages import Forward
from microsfl.zoo.parts import build_parts, client_side
from tests.service.control_plane import served
from tests.service.otlp import Collector, Span, collector
from tests.world import ALLOWED, spec_of, toy_data

LIMIT_BYTES = 1_000_000
KEY = UnitKey("toy", 0, "one", 1)
IDS = unit_ids(KEY)


@pytest.fixture
def spans() -> Iterator[Collector]:
    with collector() as kept:
        yield kept


def opened(kept: Collector, role: str, ratio: float = 1.0) -> Traces:
    traces = open_traces(kept.url, ratio, role, "here")
    assert traces is not None
    return traces


def replica(store: ObjectStore, traces: Traces | None, **caches: float) -> Any:
    settings = SplitServerSettings(store_url="memory://", allow_models=ALLOWED, **caches)
    return split_server.create_replica(settings, store, traces)


def a_round(spec: RunSpec, urls: list[str], fed_url: str, traces: Traces | None, in_flight: int = 0) -> None:
    """A client trains a round over real HTTP, and the round is closed."""
    http = Http(patience_s=60)  # on a busy machine, too, no other server is asked because the first one is slow
    split, fed = SplitServers(http, Choice("random", 0), lambda: urls), FedServer(http, lambda: fed_url)
    split.traces = traces
    modules = client_side(spec, build_parts(spec, ALLOWED))
    trainer = Trainer(spec, "one", modules, toy_data(), split, fed, torch.device("cpu"), in_flight)
    trainer.train(Task("train", "toy", 0, "one", 0, 0, 0))
    split.call("/v1/reduce", {"run": "toy", "round": 0})


def trained(
    spec: RunSpec, kept: Collector, *, client: float = 1.0, server: float = 1.0, in_flight: int = 0, **caches: float
) -> None:
    """A round with two split servers, of which each request goes to one at random. caches: bounds of theirs."""
    store = open_store("memory://")
    fed_settings = FedServerSettings(store_url="memory://", allow_models=ALLOWED)
    fed = create_app(fed_server.create_replica(fed_settings, open_store("memory://")), LIMIT_BYTES)
    mine = open_traces(kept.url, client, "client", "one")
    first, second = (replica(store, open_traces(kept.url, server, "split-server", f"s{n}"), **caches) for n in range(2))
    with (
        served(create_app(first, LIMIT_BYTES)) as one,
        served(create_app(second, LIMIT_BYTES)) as two,
        served(fed) as fed_url,
    ):
        for url in (one, two, fed_url):
            Http().request(
                "POST", lambda url=url: [url], "/v1/runs", json.dumps({"spec": spec.model_dump(mode="json")}).encode()
            )  # type: ignore[misc]
        a_round(spec, [one, two], fed_url, mine, in_flight)
    if mine is not None:
        mine.close()


def named(found: list[Span], name: str, service: str) -> Span:
    [one] = [span for span in found if (span.name, span.service) == (name, service)]
    return one


def through(kept: Collector, trace: int) -> list[Span]:
    """Without the backward that came to another server before the unit's activations did. They are sent again then."""
    refused = ("activations_missing", "ActivationsMissing(")
    return [one for one in kept.of(trace) if not str(one.failed).startswith(refused)]


NO_CACHES = {"graph_cache_mb": 0.0, "write_behind_mb": 0.0}


@pytest.mark.parametrize(("in_flight", "caches"), [(0, {}), (4, {}), (4, NO_CACHES)], ids=["0", "4", "sent again"])
def test_a_unit_is_followed_from_the_client_to_the_commit(
    spans: Collector, in_flight: int, caches: dict[str, float]
) -> None:
    trained(spec_of(), spans, in_flight=in_flight, **caches)
    assert set(spans.paths) == {"/v1/traces"}
    found = through(spans, IDS.trace)
    if caches:  # every backward was refused once, which is seen on both sides
        assert len(spans.of(IDS.trace)) == len(found) + 2
    unit = named(found, "unit", "client")
    assert (unit.id, unit.parent) == (f"{IDS.span:016x}", "")
    about = {"microsfl.run": "toy", "microsfl.round": 0, "microsfl.client": "one", "microsfl.unit": 1}
    assert unit.attributes == about
    # The client's side: front, forward, tail, backward, front again.
    mine = [named(found, n, "client") for n in ("front", "/v1/forward", "tail", "/v1/backward", "front backward")]
    assert [one.parent for one in mine] == [unit.id] * 5
    assert [one.name for one in sorted(mine, key=lambda one: one.began)] == [one.name for one in mine]
    assert all(unit.began <= one.began <= one.ended <= unit.ended for one in mine)
    # Each request has the server's answer in it, and that its phases.
    for path in ("/v1/forward", "/v1/backward"):
        asked, answered = named(found, path, "client"), named(found, path, "split-server")
        assert answered.parent == asked.id
        assert answered.attributes.items() >= about.items()
        inside = [one for one in found if one.parent == answered.id]
        phases = ["queue", "decode", "compute", "store", "encode"]
        assert [one.name for one in inside if one.name != "contribution"] == phases
        lasted = sum(one.ended - one.began for one in inside if one.name != "contribution")
        assert lasted == pytest.approx(answered.ended - answered.began, rel=0.01, abs=1000)
    back = named(found, "/v1/backward", "split-server")
    assert back.attributes["microsfl.graph"] in ("hit", "miss")
    contribution = named(found, "contribution", "split-server")
    assert contribution.parent == back.id
    assert asked.began <= contribution.began <= contribution.ended <= asked.ended
    # And the commit that took it, which carries no trace of its own but knows the key.
    commit = named(found, "commit", "split-server")
    assert commit.parent == unit.id
    assert commit.attributes == {**about, "microsfl.version": 1}
    assert commit.began >= contribution.ended
    version = commit_ids("toy", 1)
    assert commit.links == ((f"{version.trace:032x}", f"{version.span:016x}"),)
    [whole] = spans.of(version.trace)
    assert (whole.id, whole.name) == (f"{version.span:016x}", "commit")
    assert whole.attributes == {"microsfl.run": "toy", "microsfl.version": 1, "microsfl.units": 3}
    # Every unit has a trace of its own, all alike.
    for number in range(3):
        names = sorted(one.name for one in through(spans, unit_ids(UnitKey("toy", 0, "one", number)).trace))
        assert names == sorted(one.name for one in found)


def test_a_vanilla_unit_with_a_commit_of_its_own(spans: Collector) -> None:
    trained(spec_of(strategy={"name": "sflv2"}, model={"u_shaped": False}), spans)
    found = spans.of(IDS.trace)
    asked, answered = named(found, "/v1/step", "client"), named(found, "/v1/step", "split-server")
    assert answered.parent == asked.id
    commit = named(found, "commit", "split-server")
    assert commit.attributes["microsfl.version"] == 2
    assert asked.began <= commit.began <= commit.ended <= asked.ended


def test_a_unit_that_nothing_comes_back_for(spans: Collector) -> None:
    trained(spec_of(strategy={"name": "cse-fsl", "send_every": 1}), spans, in_flight=2)
    found = spans.of(IDS.trace)
    unit = named(found, "unit", "client")
    asked, back = (named(found, path, "client") for path in ("/v1/forward", "/v1/backward"))
    assert unit.began <= asked.began <= back.ended <= unit.ended
    assert named(found, "commit", "split-server").parent == unit.id


def test_servers_alone_make_the_same_trace(spans: Collector) -> None:
    """No header comes from a client that does not take part, as from `RemoteBody`."""
    trained(spec_of(), spans, client=0.0)
    found = spans.of(IDS.trace)
    assert {one.service for one in found} == {"split-server"}
    tops = {one.name for one in found if one.parent == f"{IDS.span:016x}"}
    assert tops == {"/v1/forward", "/v1/backward", "commit"}


def test_everybody_traces_the_same_share(spans: Collector) -> None:
    keys = [UnitKey("toy", 0, "one", number) for number in range(3)]
    # A share in which one of the three is, and not all.
    lowest, next_, _ = sorted(unit_ids(key).trace & (2**64 - 1) for key in keys)
    ratio = (lowest + next_) / 2 / 2**64
    assert sum(is_sampled(unit_ids(key).trace, ratio) for key in keys) == 1
    trained(spec_of(), spans, client=ratio, server=ratio)
    for key in keys:
        services = {one.service for one in spans.of(unit_ids(key).trace)}
        assert services == ({"client", "split-server"} if is_sampled(unit_ids(key).trace, ratio) else set())
    assert spans.of(commit_ids("toy", 1).trace)[0].attributes["microsfl.units"] == 3


def test_a_refused_request_says_why(spans: Collector) -> None:
    traces = opened(spans, "split-server")
    one = replica(open_store("memory://"), traces)
    message = Forward(run="toy", round=0, client="one", unit=1, activations={"0": torch.ones(8, 5)})
    with pytest.raises(RunNotFound):
        one.answer("/v1/forward", message.pack(), None, header_of(Ids(IDS.trace, 5)))
    traces.close()
    [refused] = spans.of(IDS.trace)
    assert (refused.name, refused.parent, refused.failed) == ("/v1/forward", f"{5:016x}", "run_not_found")


def test_a_part_that_fails_says_so(spans: Collector) -> None:
    traces = opened(spans, "client")
    with pytest.raises(ZeroDivisionError), span(traces, KEY, "front"):
        raise ZeroDivisionError
    traces.close()
    assert spans.of(IDS.trace)[0].failed == "ZeroDivisionError()"


# Ids


def test_ids_depend_on_every_part_of_the_key_and_on_nothing_else() -> None:
    assert unit_ids(UnitKey("toy", 0, "one", 1)) == IDS
    parts: list[dict[str, Any]] = [{"run": "toy2"}, {"round": 1}, {"client": "two"}, {"unit": 2}]
    others = [unit_ids(replace(KEY, **part)) for part in parts]
    assert len({IDS, commit_ids("toy", 1), *others}) == 6
    assert unit_ids(UnitKey(**vars(KEY))) == IDS


@pytest.mark.parametrize(
    "header",
    [
        None, "", "00", header_of(IDS)[:-1], header_of(IDS).upper(), f"ff{header_of(IDS)[2:]}", header_of(Ids(1, 2)),
        header_of(Ids(IDS.trace, 0)), f"{header_of(IDS)}\n", header_of(IDS) * 50, header_of(IDS).replace("-", "_"),
    ],
)  # fmt: skip
def test_a_header_that_names_no_span_of_the_unit_counts_for_nothing(header: str | None) -> None:
    assert parent_in(header, IDS) == IDS


def test_a_header_says_which_span_asked() -> None:
    assert parent_in(header_of(Ids(IDS.trace, 77)), IDS) == Ids(IDS.trace, 77)


@pytest.mark.parametrize("ratio", [0.0, 1e-9, 0.25, 0.5, 0.999, 1.0])
def test_the_share_is_the_one_that_opentelemetry_would_take(ratio: float) -> None:
    theirs = TraceIdRatioBased(ratio)
    for number in range(200):
        trace = unit_ids(UnitKey("toy", 0, "one", number)).trace
        sampled = theirs.should_sample(None, trace, "x").decision is Decision.RECORD_AND_SAMPLE
        assert is_sampled(trace, ratio) == sampled


# Off


def test_without_an_endpoint_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget(monkeypatch)
    assert open_traces(None, 1.0, "client", None) is None
    assert open_traces("http://127.0.0.1:1", 0.0, "client", None) is None
    with span(None, KEY, "front") as parent:
        assert parent is None


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget(monkeypatch)
    with pytest.raises(InvalidSetting, match=r"otel_endpoint is set .* pip install 'microsfl\[otel\]'"):
        open_traces("http://127.0.0.1:1", 1.0, "client", None)


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "microsfl.telemetry.otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
