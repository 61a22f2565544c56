"""Hosts with addresses of their own on one machine: network namespaces on one switch, whose links can be made bad.

Each host's link is two TAP devices with a program between them, which hands each frame from one to the other: at once,
late, now and then not at all, or never. The kernel's own netem does the same, and is not there in every kernel.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import selectors
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TUN, NEW_NETWORK = Path("/dev/net/tun"), 0x40000000
# <linux/if_tun.h>
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
LARGEST_FRAME = 65_536


def needs_namespaces() -> None:
    """Skip the test where this process may not make hosts."""
    if shutil.which("ip") is None or not TUN.exists() or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("network namespaces need root, the command ip (iproute2) and /dev/net/tun")
    probe = f"microsfl-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    subprocess.run(["ip", "netns", "del", probe], check=True)


@dataclass
class Link:
    """Between a host and the switch. delay_s: of each frame, each way. loss: share of the frames. cut: all of them."""

    host: int  # file descriptors
    switch: int
    delay_s: float = 0.0
    loss: float = 0.0
    cut: bool = False
    lost: int = 0
    late: int = 0


@dataclass
class Network:
    """`add` makes a host. Of one thread, but for the settings of the links."""

    name: str = field(default_factory=lambda: f"m{os.getpid()}")
    links: dict[str, Link] = field(default_factory=dict)
    _made: list[str] = field(default_factory=list)
    _waiting: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    _ends: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Network]:
        try:
            self._switch = self._namespace("switch")
            self._in(self._switch, "ip", "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
            self._in(self._switch, "ip", "link", "set", "bridge", "up")
            yield self
        finally:
            self._ends.set()
            if getattr(self, "_thread", None) is not None:
                self._thread.join()
            for link in self.links.values():
                os.close(link.host)
                os.close(link.switch)
            for one in self._made:
                subprocess.run(["ip", "netns", "del", one], check=False)

    def add(self, host: str, address: str) -> None:
        """A host with that address, and its link. All of them are there before `begin`."""
        number = len(self.links)
        namespace = self._namespace(host)
        with inside(self._switch):
            link = Link(_tap(f"h{number}"), _tap(f"s{number}"))
        self._in(self._switch, "ip", "link", "set", f"s{number}", "master", "bridge", "up")
        self._in(self._switch, "ip", "link", "set", f"h{number}", "netns", namespace)
        for line in (f"addr add {address}/24 dev h{number}", f"link set h{number} up", "link set lo up"):
            self._in(namespace, "ip", *line.split())
        self.links[host] = link

    def begin(self) -> None:
        self._thread = threading.Thread(target=self._forward, name="network", daemon=True)
        self._thread.start()

    def namespace(self, host: str) -> str:
        return f"{self.name}-{host}"

    def command(self, host: str, *arguments: str) -> list[str]:
        """What runs there."""
        return ["ip", "netns", "exec", self.namespace(host), *arguments]

    def _namespace(self, host: str) -> str:
        name = self.namespace(host)
        subprocess.run(["ip", "netns", "add", name], check=True)
        self._made.append(name)
        return name

    @staticmethod
    def _in(namespace: str, *command: str) -> None:
        subprocess.run(["ip", "netns", "exec", namespace, *command], check=True)

    def _forward(self) -> None:
        draw, count = random.Random(0), 0
        with selectors.DefaultSelector() as selector:
            for link in self.links.values():
                selector.register(link.host, selectors.EVENT_READ, (link, link.switch))
                selector.register(link.switch, selectors.EVENT_READ, (link, link.host))
            while not self._ends.is_set():
                now = time.monotonic()
                while self._waiting and self._waiting[0][0] <= now:
                    _write(self._waiting[0][2], heapq.heappop(self._waiting)[3])
                until = self._waiting[0][0] - now if self._waiting else 0.1
                for key, _ in selector.select(min(until, 0.1)):
                    link, to = key.data
                    frame = os.read(key.fd, LARGEST_FRAME)
                    if link.cut or draw.random() < link.loss:
                        link.lost += 1
                    elif link.delay_s:
                        link.late += 1
                        count += 1
                        heapq.heappush(self._waiting, (time.monotonic() + link.delay_s, count, to, frame))
                    else:
                        _write(to, frame)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread alone is in a namespace, as far as sockets and devices go that it makes meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(file: str) -> None:
        with Path(file).open("rb") as found:
            if libc.setns(found.fileno(), NEW_NETWORK):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), file)

    with Path("/proc/thread-self/ns/net").open("rb") as before:
        enter(f"/run/netns/{namespace}")
        try:
            yield
        finally:
            libc.setns(before.fileno(), NEW_NETWORK)


def _tap(name: str) -> int:
    device = os.open(TUN, os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return device


def _write(device: int, frame: bytes) -> None:
    with suppress(OSError):  # the other side is not up yet, or any more: the frame is lost
        os.write(device, frame)
