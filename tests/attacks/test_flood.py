"""One client floods while four train: the four keep their pace, and the flood changes nothing in the store."""

from __future__ import annotations

import base64
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import urllib3

from microsfl.client.http import BINARY, Http
from microsfl.spec import RunSpec
from microsfl.trust.scopes import Role
from microsfl.wire.messages import Gradients, Step
from tests.attacks.process import Live, environment, split_server

TRAINERS = ("one", "two", "three", "four")
UNITS = 40  # of each in a phase
PHASES = 9  # of either kind
CONNECTIONS = 400
LABELS = {"0": torch.zeros(64, dtype=torch.int64)}
ACTIVATIONS = {"0": torch.randn(64, 128, generator=torch.Generator().manual_seed(0))}


def spec() -> RunSpec:
    values = {
        "run": {"name": "toy", "rounds": 2},
        "data": {"clients": 5, "batch_size": 64},
        "model": {"name": "tests.toys:repeated", "u_shaped": False},
    }
    return RunSpec.parse(values).resolved(input_shape=(6,), classes=3)


def step(client: str, unit: int) -> bytes:
    return Step(run="toy", round=0, client=client, unit=unit, activations=ACTIVATIONS, labels=LABELS).pack()


def train(live: Live, http: Http, client: str, first: int) -> None:
    """Units of one client, one after the other, as a client of a vanilla cut sends them."""
    headers = {"authorization": f"Bearer {live.token(client)}"}
    for unit in range(first, first + UNITS):
        answer = http.request("POST", lambda: [live.url], "/v1/step", step(client, unit), BINARY, 0.0, headers)
        assert Gradients.unpack(answer.data).version == 0


def pace(live: Live, https: list[Http], number: int) -> float:
    """Units a second of the four together."""
    began = time.perf_counter()
    with ThreadPoolExecutor(len(TRAINERS)) as pool:
        for done in [pool.submit(train, live, h, c, number * UNITS) for h, c in zip(https, TRAINERS, strict=True)]:
            done.result()
    return len(TRAINERS) * UNITS / (time.perf_counter() - began)


@contextmanager
def flood(live: Live) -> Iterator[subprocess.Popen[str]]:
    body = step("flood", 0)
    head = f"POST /v1/step HTTP/1.1\r\nhost: x\r\ncontent-type: {BINARY}\r\ncontent-length: {len(body)}\r\n"
    request = f"{head}authorization: Bearer {live.token('flood')}\r\n\r\n".encode() + body
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-m", "tests.attacks.flood"]
    with subprocess.Popen(command, text=True, env=environment(), **pipes) as process:  # type: ignore[call-overload]
        say(process, live.port, CONNECTIONS, base64.b64encode(request).decode())
        try:
            yield process
        finally:
            process.kill()


def drain(live: Live) -> None:
    """Until the server has done, or dropped, what the flood left behind."""
    headers = {"authorization": f"Bearer {live.token('viewer', Role.VIEWER)}"}
    is_open = re.compile(r'microsfl_open_requests{[^}]*path="/v1/step"} [1-9]')
    while is_open.search(urllib3.request("GET", f"{live.url}/metrics", headers=headers).data.decode()):
        pass


def say(process: subprocess.Popen[str], *lines: object) -> None:
    assert process.stdin is not None
    process.stdin.write("".join(f"{line}\n" for line in lines))
    process.stdin.flush()


@pytest.mark.slow
def test_a_flood_of_one_client_leaves_four_others_their_pace(tmp_path: Path) -> None:
    quiet, flooded, seen = [], [], {}
    with split_server(tmp_path, "--log-level", "error", identities=True) as live, flood(live) as process:
        live.prepare(spec().model_dump(mode="json"))
        assert process.stdout is not None
        https = [Http() for _ in TRAINERS]
        pace(live, https, 0)
        for number in range(1, 2 * PHASES, 2):
            quiet.append(pace(live, https, number))
            say(process, "go")
            assert process.stdout.readline() == "flooding\n"
            flooded.append(pace(live, https, number + 1))
            say(process, "stop")
            seen = json.loads(process.stdout.readline())
            drain(live)
    assert seen["429"] > 0
    # Each phase beside the quiet one before it: what else the machine does changes more slowly.
    ratio = statistics.median(after / before for before, after in zip(quiet, flooded, strict=True))
    assert ratio >= 0.8, (quiet, flooded, seen)
    contributions = {path.parent.name for path in tmp_path.rglob("gradients/*/*.safetensors")}
    assert contributions == {*TRAINERS, "flood"}
    assert len(list(tmp_path.rglob("gradients/flood/*"))) == 1  # whatever it sends, it is one unit
