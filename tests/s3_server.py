"""S3 for tests: moto's server in this process, and a proxy in front of it that does what networks and stores do.

moto is right about conditional writes and checks no signatures, so whatever a store says about credentials, clocks and
throttling is said by the proxy, as Amazon's documentation words it.
"""

from __future__ import annotations

import http.client
import logging
import socket
import struct
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from moto.server import ThreadedMotoServer

KEY_ID, SECRET = "AKIATESTKEYID", "s3cret-that-nobody-may-see"


def environment_for(endpoint: str) -> dict[str, str]:
    """What a process needs to be told of the server at `endpoint`."""
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}


@contextmanager
def s3_server(*buckets: str, port: int = 0) -> Iterator[str]:
    """The URL of an S3 server with these buckets, all empty."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    for bucket in buckets:
        urllib.request.urlopen(urllib.request.Request(f"{url}/{bucket}", method="PUT")).close()
    try:
        yield url
    finally:
        server.stop()


@dataclass(frozen=True)
class Fault:
    """What the proxy does instead of passing a request on and its answer back.

    reaches_store: the request is passed on all the same, and only its answer is lost.
    then: "answer" with status and code, "reset" or "close" the connection, "hang" until the client gives up, or
        "truncate" the store's answer in its middle.
    """

    then: str
    status: int = 500
    code: str = ""
    reaches_store: bool = False


@dataclass
class Proxy:
    """Passes requests to `target`, but for those that meet a fault. Records every request as "VERB /path"."""

    target: str
    script: deque[Fault | None] = field(default_factory=deque)  # of the next requests; None: let it pass
    always: Fault | None = None  # of every request after the script
    first_put_of_each_key: Fault | None = None
    honours_conditions: bool = True
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def fault_for(self, request: str) -> Fault | None:
        seen = request in self.requests
        self.requests.append(request)
        if self.script:
            return self.script.popleft()
        if self.first_put_of_each_key and request.startswith("PUT ") and not seen:
            return self.first_put_of_each_key
        return self.always

    def pass_on(self, verb: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        if not self.honours_conditions:
            headers = {name: value for name, value in headers.items() if name.lower() != "if-none-match"}
        connection = http.client.HTTPConnection(urlsplit(self.target).netloc)
        try:
            connection.request(verb, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()


@contextmanager
def proxy_to(target: str) -> Iterator[Proxy]:
    """A proxy on a free port; without faults it changes nothing."""
    proxy = Proxy(target)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = self.proxy.fault_for(f"{self.command} {self.path}")
        if fault is None or fault.reaches_store or fault.then == "truncate":
            status, headers, content = self.proxy.pass_on(self.command, self.path, dict(self.headers), body)
        if fault is None:
            self._answer(status, headers, content)
        elif fault.then == "answer":
            self._answer(
                fault.status, {}, f"<Error><Code>{fault.code}</Code><Message>{SECRET}</Message></Error>".encode()
            )
        elif fault.then == "truncate":
            self._answer(status, headers, content, sent=len(content) // 2)
            self.close_connection = True
        else:
            self._break(fault.then)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

    def _answer(self, status: int, headers: dict[str, str], content: bytes, sent: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        # A HEAD's answer says how long the content would be.
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        if status != 204:
            self.send_header("content-length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:sent])

    def _break(self, how: str) -> None:
        if how == "hang":
            self.connection.recv(1)  # nothing comes: it returns when the client gives up
        if how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """The tests read `Proxy.requests`."""
