"""Requests that a service's own description of its API makes up, right ones and wrong ones (schemathesis)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode

from microsfl.services.replica import BINARY
from microsfl.trust.tokens import Caller
from microsfl.wire.tensors import encode
from tests.attacks.estate import AREAS, RUN, Estate
from tests.fuzz.replica_api import documents

TIMEOUT_S = 30.0
LONGEST_WAIT_S = 0.01  # long polls are asked to be short
STREAMS = ("/api/events", "/api/runs/{run}/events")
SLOW = ("/api/runs/{run}/results.zip", "/api/resolve")  # each starts a process
SLOW_EXAMPLES = 4

DIRECTED = ("/v1/runs", "/v1/partials", "/v1/aggregate")  # which are the coordinator's alone

TYPES = ("Forward", "Backward", "Step", "Predict", "Update", "Outputs", "")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "run": st.sampled_from([RUN, "other", "..", ""]),
        "round": st.sampled_from([0, 1, -1, 10**9, 2**70, None]),
        "client": st.sampled_from(["alice", "bob", "a/b", 1]),
        "unit": st.integers(-1, 5),
        "batches": st.sampled_from([1, 2, 8, 0, 4097]),
        "version": st.sampled_from([0, 1, None, -1, "0"]),
        "at_least": st.sampled_from([0, 1, None]),
        "needs_grad": st.lists(st.sampled_from(["0", "1", ""]), max_size=2),
        "samples": st.sampled_from([1, 8, 0, 10**9]),
        "sticky": st.booleans(),
        "scalars": st.dictionaries(
            st.text(max_size=3), st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=2
        ),
    },
)
NAMES = st.sampled_from(
    ["activations.0", "gradients.0", "labels.0", "weights.front.0.weight", "activations.0.int8", "activations.x", "x"]
)
SHAPES = st.sampled_from([(8, 5), (8, 4), (8,), (0, 5), (), (1, 8, 5), (8, 6), (16, 5)])


@dataclass
class Found:
    """statuses: by service; broken: what must not be."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")  # seconds, path

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bytes that are nearly a message."""
    tensors = {
        name: torch.ones(draw(SHAPES)).to(draw(st.sampled_from(DTYPES)))
        for name in draw(st.lists(NAMES, max_size=3, unique=True))
    }
    fields = {"run": RUN, "round": 0, "client": "alice", "unit": 0, **draw(FIELDS)}
    body = encode(tensors, {"type": draw(st.sampled_from(TYPES)), **fields})
    cut = draw(st.integers(0, 60))
    return body if cut > 3 else body[: len(body) * cut // 4]


def fuzz(it: Estate, service: str, examples: int, number: int = 0) -> Found:
    """Send `examples` requests of each kind to each operation of the service."""
    found = Found()
    headers = {"authorization": f"Bearer {almighty(it, service)}"}
    with requests.Session() as session:
        for operation in operations(it, service):
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                one = _one(it, service, found, session, headers)
                cases = operation.as_strategy(generation_mode=mode)
                limits = settings(
                    max_examples=min(examples, SLOW_EXAMPLES) if operation.path in SLOW else examples,
                    deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
                    suppress_health_check=list(HealthCheck), print_blob=False,
                )  # fmt: skip
                with suppress(Unsatisfiable):  # of what has no parameter, nothing can be wrong
                    seed(number)(limits(given(cases, bodies(), st.booleans())(one)))()
    return found


def almighty(it: Estate, service: str) -> str:
    """Of somebody who passes the gate everywhere: an operator, who at a replica plays the coordinator now and then."""
    caller = it.identities.caller(next(one for one in it.identities.all() if one.id == "operator"))
    assert isinstance(caller, Caller)
    return it.signer.token(caller, AREAS[service], life_s=10**9, now=it.now())


def operations(it: Estate, service: str) -> Iterator[Any]:
    described = (
        requests.get(it.urls[service] + "/openapi.json", timeout=TIMEOUT_S).json()
        if service == "coordinator"
        else documents()[service]
    )
    for one in schemathesis.openapi.from_dict(described).get_all_operations():
        yield one.ok()


def _one(it: Estate, service: str, found: Found, session: requests.Session, headers: dict[str, str]) -> Any:
    coordinator = {"authorization": f"Bearer {it.identities.own_token(AREAS[service])}"}

    def send(case: Case, body: bytes, real: bool) -> None:
        path = case.operation.path
        if real and "run" in (case.path_parameters or {}) and path not in SLOW:
            case.path_parameters["run"] = RUN
        if case.media_type == BINARY:
            case.body = body
        for place in (case.query, case.body):
            if isinstance(place, dict) and isinstance(place.get("wait_s"), int | float):
                place["wait_s"] = min(place["wait_s"], LONGEST_WAIT_S)
        who = coordinator if service != "coordinator" and path in DIRECTED else headers
        sent = case.as_transport_kwargs(base_url=it.urls[service])
        sent["headers"] = {**(sent.get("headers") or {}), **who}
        began = time.monotonic()
        try:
            answer = session.request(**sent, timeout=TIMEOUT_S, stream=True, allow_redirects=False)
            content = b"" if path in STREAMS and answer.status_code == 200 else answer.content
            answer.close()
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError):
            return  # what no client can send
        except requests.exceptions.RequestException as error:
            found.broken.append(f"{case.method} {path}: {type(error).__name__}")
            return
        found.slowest = max(found.slowest, (time.monotonic() - began, path))
        found.statuses[service, answer.status_code] += 1
        if problem := wrong_with(answer.status_code, content):
            found.broken.append(f"{case.method} {path}: {problem}; {case.as_curl_command()[:2000]}")

    return send


def wrong_with(status: int, content: bytes) -> str:
    """Nothing, or what is wrong with an answer."""
    if status >= 500:
        return f"{status} {content[:300]!r}"
    if b"Traceback (most recent" in content:
        return "a traceback"
    return ""
