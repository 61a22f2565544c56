"""The other side of `polling.py`: clients that are simulated, and a server that does nothing, each in its own process.

    python -m benchmarks.polling_clients echo                 # prints its port; ends with its standard input
    python -m benchmarks.polling_clients load '{"kind": …}'   # prints what it measured, as JSON

A simulated client talks as a client process of one client does: polls and reports on one connection, says every 3 s on
another that it is there. HTTP/1.1 is written and read by hand, so that a request costs little on this side.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

from microsfl.services.http import allow_connections

# As in microsfl.client.agent, without its import of torch.
HEARTBEAT_S = 3.0
POLL_S = 20.0
POLL_EVERY_S = 1.0
TRAIN = {"train_loss": 1.0, "samples": 100, "batches": 4, "seconds": 0.5, "started_at": 1.0}
EVALUATE = {"test_loss": 1.0, "test_accuracy": 0.5, "test_samples": 10, "seconds": 0.5, "started_at": 1.0}
TRAFFIC = {"bytes_up": 100_000, "bytes_down": 100_000}

Json = dict[str, Any]


class Connection(asyncio.Protocol):
    """One connection that is kept; one request at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[bytes] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        body = body_of(self._received)
        if body is None:
            return
        status, self._received = self._received[9:12], b""
        if self._answer is not None and not self._answer.done():
            if status[:1] == b"2":
                self._answer.set_result(body)
            else:
                self._answer.set_exception(ConnectionError(f"{status.decode()}: {body[:200].decode()}"))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the connection was closed"))

    async def ask(self, request: bytes) -> bytes:
        """The body of the answer.

        Raises:
            ConnectionError: when there is none, or one that says that something is wrong.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


def body_of(message: bytes) -> bytes | None:
    """The body of an HTTP message once all of it is there."""
    end = message.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = message[:end].lower()
    at = head.find(b"content-length:")
    length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    return message[end + 4 :] if len(message) == end + 4 + length else None


class Echo(asyncio.Protocol):
    """Answers every request at once: as a split server and a fed server would, as a coordinator without tasks else."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        body = body_of(self._received)
        if body is not None:
            path = self._received.split(b" ", 2)[1]
            self._received = b""
            self._transport.write(http_answer(self._answer(path, body)))

    def _answer(self, path: bytes, body: bytes) -> Json:
        if path == b"/v1/runs":
            return {"version": 0}
        if path in (b"/v1/reduce", b"/v1/aggregate"):
            counts = {"contributions": 1, "left_out": 0, "batches": 1}
            return {"version": json.loads(body)["round"] + 1, **counts}
        return {"tasks": [], "split_servers": ["http://127.0.0.1:8100"], "fed_server": "http://127.0.0.1:8200"}


def http_answer(values: Json) -> bytes:
    body = json.dumps(values).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def http_post(path: str, values: Json) -> bytes:
    body = json.dumps(values).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: coordinator\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Load:
    """What is measured.

    kind: "polls", every client asks once a second and is answered at once; "rounds", the clients wait for tasks and
    report each at once, until `rounds` of the run are over; "requests", each of them sends as many requests as it takes
    to have that many rounds, one after another.
    """

    kind: str
    host: str
    port: int
    clients: int
    seconds: float = 0.0
    window_s: float = 1.0
    run: str = ""
    rounds: int = 0


@dataclass
class Fleet:
    """All clients, and what they came to see. Times are those of the event loop."""

    load: Load
    errors: list[str] = field(default_factory=list)
    polls: list[tuple[float, float]] = field(default_factory=list)  # (sent, seconds until the answer)
    reported: dict[tuple[int, str], float] = field(default_factory=dict)  # (round, kind) -> the last report sent
    got: defaultdict[tuple[int, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    async def run(self) -> Json:
        load = self.load
        ids = [f"client-{number:04}" for number in range(load.clients)]
        talking = [await self._connect() for _ in ids]
        saying = [await self._connect() for _ in ids]
        for connection, client in zip(saying, ids, strict=True):
            await connection.ask(registration(client))
        heartbeats = [
            asyncio.create_task(self._keep_saying(connection, client, HEARTBEAT_S * number / len(ids)))
            for number, (connection, client) in enumerate(zip(saying, ids, strict=True))
        ]
        work = {"polls": self._poll, "rounds": self._work, "requests": self._request}[load.kind]
        began_at = time.perf_counter()
        await asyncio.gather(*(work(talking[number], client, number) for number, client in enumerate(ids)))
        seconds = time.perf_counter() - began_at
        for task in heartbeats:
            task.cancel()
        return {"seconds": seconds, "errors": self.errors[:5], "failed": len(self.errors), **self._seen()}

    def _seen(self) -> Json:
        if self.load.kind == "polls":
            windows: defaultdict[int, list[float]] = defaultdict(list)
            for sent, latency in self.polls:
                windows[int(sent / self.load.window_s)].append(latency)
            return {"windows": [windows[number] for number in sorted(windows)]}
        phases = [(round_, kind) for round_ in range(self.load.rounds) for kind in ("train", "evaluate")]
        gaps = [
            (self.got[phase][0] - self.reported[before], self.got[phase][-1] - self.reported[before])
            for before, phase in pairwise(phases)
            if self.load.kind == "rounds"
        ]
        return {"first_task_s": [first for first, _ in gaps], "last_task_s": [last for _, last in gaps]}

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self.load.host, self.load.port)
        return connection

    async def _keep_saying(self, connection: Connection, client: str, first_s: float) -> None:
        request = registration(client)
        await asyncio.sleep(first_s)
        while True:
            await self._try(connection.ask(request))
            await asyncio.sleep(HEARTBEAT_S)

    async def _try(self, asked: Coroutine[None, None, bytes]) -> bytes | None:
        try:
            return await asked
        except ConnectionError as error:
            self.errors.append(str(error))
            return None

    async def _poll(self, connection: Connection, client: str, number: int) -> None:
        """Polls at fixed times. One that could not be sent in time, as the one before it took so long, counts from the
        time at which it was due."""
        request = http_post("/api/tasks/poll", {"clients": [client], "wait_s": 0})
        began, done = time.perf_counter(), 0.0
        due = began + POLL_EVERY_S * number / self.load.clients
        while due < began + self.load.seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent = due if done > due else time.perf_counter()
            if await self._try(connection.ask(request)) is not None:
                self.polls.append((due - began, time.perf_counter() - sent))
            done = time.perf_counter()
            due += POLL_EVERY_S

    async def _work(self, connection: Connection, client: str, _: int) -> None:
        request = http_post("/api/tasks/poll", {"clients": [client], "wait_s": POLL_S})
        last = (self.load.rounds - 1, "evaluate")
        while True:
            answer = await self._try(connection.ask(request))
            for task in json.loads(answer)["tasks"] if answer is not None else ():
                key = (int(task["round"]), str(task["kind"]))
                self.got[key].append(time.perf_counter())
                self.reported[key] = time.perf_counter()
                await self._try(connection.ask(report(task)))
                if key == last:
                    return

    async def _request(self, connection: Connection, client: str, _: int) -> None:
        """As `_work`, of a server that answers whatever it is asked."""
        poll = http_post("/api/tasks/poll", {"clients": [client], "wait_s": POLL_S})
        task = {"run": self.load.run, "client": client, "round": 0}
        for _ in range(self.load.rounds):
            for kind in ("train", "evaluate"):
                json.loads(await self._try(connection.ask(poll)) or "{}")
                await self._try(connection.ask(report({**task, "kind": kind})))


def registration(client: str) -> bytes:
    me = {"id": client, "role": "client", "address": None, "info": {"version": "0", "device": "cpu"}}
    return http_post("/api/participants", me)


def report(task: Json) -> bytes:
    """That the task is done."""
    body = {name: task[name] for name in ("client", "kind", "round")}
    metrics = TRAIN if task["kind"] == "train" else EVALUATE
    return http_post(f"/api/runs/{task['run']}/reports", {**body, "metrics": {**metrics, **TRAFFIC}})


async def echo() -> None:
    """Serve until standard input closes."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main(what: str, values: str = "{}") -> None:
    import uvloop

    allow_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if what == "echo":
            runner.run(echo())
        else:
            print(json.dumps(runner.run(Fleet(Load(**json.loads(values))).run())))


if __name__ == "__main__":
    main(*sys.argv[1:])
