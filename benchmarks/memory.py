"""Whether a split server grows: its memory after 30,000 units ÷ after the first 1,000.

100 clients do ten units in each of 30 rounds, a forward and a backward each, on the tiniest tensors, as fast as a few
connections carry them; after each thousand the round is closed by a reduce, and the resident memory (VmRSS) of the
server's process is read from /proc, which there is on Linux alone. The repetitions are the readings after each of the
last five thousands ÷ the one after the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

import microsfl
from microsfl.client.entitled import asking
from microsfl.client.http import Http
from microsfl.trust.tickets import ticket_for
from microsfl.trust.tokens import Audience
from microsfl.wire.messages import Backward, Forward

from .figures import Figure
from .places import new_folder

RUN = "memory"
CLIENTS = 100
UNITS = 10  # of a client in a round
ROUNDS = 30
READINGS = 5
CONNECTIONS = 4
Headers = dict[str, str]

BINARY: Headers = {"content-type": "application/octet-stream"}
TENSORS = {"0": torch.rand(1, 1, 4)}


def measure(quick: bool) -> Iterator[Figure]:
    rounds, readings = (3, 1) if quick else (ROUNDS, READINGS)
    with (
        new_folder() as folder,
        microsfl.Federation(specification(), folder=folder / "run") as federation,
    ):
        server = next(child for child in federation.children if child.role == "split-server")
        address = str(server.address)
        token = authorization(federation.coordinator)
        memory = []
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for round_ in range(rounds):
                shares = [range(first, CLIENTS, CONNECTIONS) for first in range(CONNECTIONS)]
                list(pool.map(lambda clients, r=round_: train(address, token, r, clients), shares))
                reduce(address, token, round_)
                memory.append(resident_kb(server.process.pid))
    units = CLIENTS * UNITS
    yield Figure(
        f"split server's memory after {rounds * units:,} units ÷ after {units:,}",
        tuple(one / memory[0] for one in memory[-readings:]),
        1.05,
        at_least=False,
        note=f"{memory[0] / 1e3:.0f} MB, then {memory[-1] / 1e3:.0f} MB",
    )


def authorization(coordinator: str) -> Headers:
    """The header with a token for split servers, which lives longer than this takes."""
    ticket = ticket_for(coordinator, asking(Http(), coordinator))
    if ticket is None:
        raise ValueError("the federation has no credential")
    return ticket.header(Audience.BODY)


def specification() -> microsfl.RunSpec:
    return microsfl.RunSpec.parse(
        {
            "run": {"name": RUN, "managed": False, "rounds": ROUNDS},
            "data": {"dataset": "benchmarks.data:vectors", "clients": 1},
            "model": {"name": "benchmarks.models:narrow"},
            "servers": {"split": 1},
        }
    )


def train(address: str, token: Headers, round_: int, clients: range) -> None:
    """All units of these clients in a round, over one connection."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=60)
    for client in clients:
        for unit in range(UNITS):
            key: dict[str, Any] = {
                "run": RUN,
                "round": round_,
                "client": f"client-{client:03}",
                "unit": unit,
                "needs_grad": ("0",),
            }
            # A round ends with one more version: its number is the version that it is computed on.
            forward = Forward(**key, version=round_, activations=TENSORS)
            post(connection, "/v1/forward", forward.pack(), {**BINARY, **token})
            backward = Backward(**key, version=round_, gradients=TENSORS)
            post(connection, "/v1/backward", backward.pack(), {**BINARY, **token})
    connection.close()


def reduce(address: str, token: Headers, round_: int) -> None:
    """Close the round."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=60)
    body = json.dumps({"run": RUN, "round": round_}).encode()
    answer = json.loads(post(connection, "/v1/reduce", body, {"content-type": "application/json", **token}))
    connection.close()
    if answer["contributions"] != CLIENTS * UNITS:
        raise ValueError(f"round {round_} has {answer['contributions']} contributions")


def post(connection: HTTPConnection, path: str, body: bytes, headers: Headers) -> bytes:
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise ValueError(f"{path}: {content!r:.500}")
    return content


def resident_kb(process: int) -> int:
    """Memory of a process that is not swapped out, in kB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
