"""What travels besides the tensors that have to: bytes on the wire ÷ bytes of tensors, of one U-shaped unit.

A client's transport asks a split server (both real, the server a process of its own) through a proxy that counts what
goes over the TCP connection, both ways: packets and HTTP with all its headers. A unit sends activations and the
outputs' gradient and gets outputs and the cut-layer gradient, four float32 tensors of one size, 256 or 16 KiB each.

A repetition is a unit. For comparison the note says how long a unit takes without the proxy, and how long a raw
transfer of the same bytes, to a thread that sends as many back and in the same two turns, over a loopback connection.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch

import microsfl
from microsfl.client.choice import Choice
from microsfl.client.entitled import Ways
from microsfl.client.http import Http, Way
from microsfl.client.transport import SplitServers
from microsfl.wire.messages import Backward, Forward

from .figures import Figure
from .places import new_folder
from .proxy import Proxy, receive

RUN = "wire"
SAMPLES = 64
KIB = 1024
TARGETS = {256: 1.02, 16: 1.10}
REPETITIONS = 20


def measure(quick: bool) -> Iterator[Figure]:
    repetitions = 5 if quick else REPETITIONS
    spec = microsfl.RunSpec.parse(
        {
            "run": {"name": RUN, "managed": False},
            "data": {"dataset": "benchmarks.data:vectors", "clients": 1},
            "model": {"name": "benchmarks.models:narrow"},
            "servers": {"split": 1},
        }
    )
    with (
        new_folder() as folder,
        microsfl.Federation(spec, folder=folder / "run") as federation,
    ):
        address = next(str(child.address) for child in federation.children if child.role == "split-server")
        with Proxy(address) as proxy:
            counted, direct = (
                Client(name, one, Ways.of(Http(), federation.coordinator).body)
                for name, one in (("counted", proxy.address), ("direct", address))
            )
            for size_kib, target in TARGETS.items():
                tensor = torch.rand(SAMPLES, 1, size_kib * KIB // SAMPLES // 4)
                values, seconds, raw = [], [], []
                for repetition in range(repetitions + 1):
                    before = proxy.bytes
                    counted.unit(tensor)
                    if repetition:  # the first one makes the connection
                        values.append((proxy.bytes - before) / (4 * tensor.nbytes))
                    seconds.append(timed(partial(direct.unit, tensor)))
                    raw.append(loopback(2 * tensor.nbytes))
                note = f"a unit takes {median(seconds) * 1e3:.1f} ms, raw loopback {median(raw) * 1e3:.2f} ms"
                name = f"bytes on the wire ÷ bytes of tensors, {size_kib} KiB each"
                yield Figure(name, tuple(values), target, at_least=False, note=note)


class Client:
    """One that trains nothing: it sends tensors and gets tensors back."""

    def __init__(self, name: str, server: str, way: Way | None = None) -> None:
        self.name, self.number = name, 0
        self.servers = SplitServers(way or Http(), Choice("sticky", 0), lambda: [server])

    def unit(self, tensor: torch.Tensor) -> None:
        """One round of sending and getting back, of activations and of gradients, all like `tensor`."""
        key: dict[str, Any] = {"run": RUN, "round": 0, "client": self.name, "unit": self.number}
        self.number += 1
        tensors = {"0": tensor}
        there = self.servers.forward(Forward(**key, needs_grad=("0",), activations=tensors))
        back = Backward(**key, needs_grad=("0",), version=there.version, gradients=tensors)
        answer = self.servers.backward(back, tensors)
        if there.outputs["0"].nbytes != tensor.nbytes or answer.gradients["0"].nbytes != tensor.nbytes:
            raise ValueError("the body should leave the size of a tensor as it is")


def timed(work: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    began_at = time.perf_counter()
    work()
    return time.perf_counter() - began_at


def echo(sock: socket.socket, size_bytes: int) -> None:
    """Send back what comes, twice."""
    for _ in range(2):
        sock.sendall(receive(sock, size_bytes))


def loopback(size_bytes: int) -> float:
    """Seconds for two turns of `size_bytes` / 2 there and as much back."""
    block = bytes(size_bytes // 2)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=echo, args=(far, len(block)))
            thread.start()
            began_at = time.perf_counter()
            for _ in range(2):
                near.sendall(block)
                receive(near, len(block))
            seconds = time.perf_counter() - began_at
            thread.join()
    return seconds
