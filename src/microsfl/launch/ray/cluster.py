"""The Ray that processes are placed on: a node of our own for as long as the run lasts, or a cluster that is there."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...config import is_loopback
from ...errors import InvalidSetting, OperationError
from ...trust.files import write_private
from ...trust.secret import new_secret

CALLS = 8  # that an actor answers at a time
TRIES = 2  # to start a node, to which Ray gives 30 s: a busy machine may need more
ANSWER_S = 5.0  # for the address of a cluster to be answered at
OBJECT_STORE_BYTES = 80 * 1024 * 1024  # Ray's least: nothing goes through it
LONGEST_TMP = 40  # characters of a folder below which Ray's sockets still have names of less than 107
NEITHER = "--on: '{}' is nowhere; write ray, ray://host:10001 (Ray client), ray:host:6379 or ray:auto."
# Of the folder with the user's modules, what no node needs.
LEFT_BEHIND = [".git", ".venv", "venv", "runs", "microsfl-data", "__pycache__"]
# A node of our own: on the loopback interface alone, closed to other users of the machine, and silent.
OWN = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # what an actor starts has its niceness, and is what this machine is to compute
}


def address_in(on: str) -> str | None:
    """The address of a Ray cluster in the value of `--on`; None: there is none, a node of our own is wanted.

    Raises:
        InvalidSetting: when it is neither.
    """
    if on == "ray":
        return None
    _, _, rest = on.partition("ray:")
    address = on if rest.startswith("//") else rest
    if not on.startswith("ray:") or (rest != "auto" and _host_and_port(address) is None):
        raise InvalidSetting(NEITHER.format(f"{on:.80}"))
    return address


@dataclass(frozen=True)
class Needs:
    """What Ray keeps for an actor."""

    cpus: float = 0.0
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, float]:
        named = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return {name: amount for name, amount in named.items() if amount}

    def __str__(self) -> str:
        return ", ".join(f"{amount:g} {name}" for name, amount in self.all.items()) or "nothing"


class Cluster:
    """Connected from `open` to `close`.

    Args:
        address: where others started one; None: start a node here, unless this process is connected to a Ray already.

    Raises:
        OperationError: when Ray is not installed.
    """

    def __init__(self, address: str | None) -> None:
        if find_spec("ray") is None:
            raise OperationError("--on ray places the processes with Ray: pip install 'microsfl[ray]'.")
        self.address = address
        self.ip = "127.0.0.1"  # of this machine, as the nodes see it
        self.nodes: list[dict[str, Any]] = []
        self._opened = False
        self.folder: Path | None = None  # of our own, where nobody else can look; None on a cluster of others

    def open(self, cpus: float, code: str | None = None) -> None:
        """Start or join it.

        Args:
            cpus: that a node of our own is to have at least, more than there are included: nobody else is on it.
            code: folder with the user's own modules, which nodes of a cluster are to get; None: there are none.

        Raises:
            OperationError: when Ray does not come up.
            InvalidSetting: when there is no cluster at the address, or one of another version.
        """
        if self.address is None:
            self._start(cpus)
        else:
            _check_answers(self.address)
            self._join(self.address, code)
        import ray

        self.nodes = [node for node in ray.nodes() if node["Alive"]]
        self.ip = self._own_ip()

    def close(self) -> None:
        """Leave it; a node of our own ends."""
        if self._opened:
            self._opened = False
            import ray

            ray.shutdown()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_here(self) -> bool:
        """Whether all of it is on this machine's loopback interface: nothing that is sent can be seen elsewhere."""
        return len(self.nodes) == 1 and is_loopback(str(self.nodes[0]["NodeManagerAddress"]))

    @property
    def has_one_folder(self) -> bool:
        """Whether every process sees this machine's files."""
        return len(self.nodes) == 1 and self.nodes[0]["NodeManagerAddress"] == self.ip

    @property
    def total(self) -> dict[str, float]:
        """The resources of all nodes that are there."""
        sums: dict[str, float] = {}
        for node in self.nodes:
            for name, amount in node["Resources"].items():
                sums[name] = sums.get(name, 0.0) + amount
        return sums

    def check(self, wanted: list[Needs]) -> None:
        """Raises InvalidSetting when the cluster does not have what these want together, or no node what one wants."""
        sums: dict[str, float] = {}
        for one in wanted:
            for name, amount in one.all.items():
                sums[name] = sums.get(name, 0.0) + amount
        short = [name for name, amount in sums.items() if self.total.get(name, 0.0) < amount]
        if short:
            said = ", ".join(f"{sums[name]:g} {name} (there: {self.total.get(name, 0.0):g})" for name in short)
            raise InvalidSetting(
                f"The Ray cluster is too small: the least that this run needs is {said}. See the table [ray], "
                "`microsfl config --show`."
            )
        for one in wanted:
            if not any(_fits(one, node) for node in self.nodes):
                raise InvalidSetting(f"No node of the Ray cluster has {one} at once.")

    def place(self, name: str, needs: Needs, restarts: int) -> Any:
        """Handle of a new actor; Ray puts it on a node as soon as there is one with what it needs."""
        import ray

        from .holder import Holder

        options = {
            "name": name,
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus,
            "resources": dict(needs.resources),
            "max_restarts": restarts,
            "max_concurrency": CALLS,
            "scheduling_strategy": "SPREAD",
        }
        return ray.remote(Holder).options(**options).remote()

    def _start(self, cpus: float) -> None:
        """Ray reads some of its settings when it is imported, and its token once in a process's life."""
        self.folder = _temporary()
        with _own_environment(self.folder), _own_handlers():
            import ray

            if ray.is_initialized():
                return  # the caller's
            for tries_left in reversed(range(TRIES)):
                try:
                    self._begin(max(math.ceil(cpus), 1), self.folder)
                    return
                except Exception as error:  # noqa: BLE001 - Ray raises no other when its node takes over 30 s to begin
                    if not tries_left:
                        raise OperationError(f"Ray does not start here: {_first_line(error)}") from None

    def _begin(self, cpus: int, folder: Path) -> None:
        import ray

        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address=self.ip,
            _temp_dir=str(folder),
        )
        self._opened = True

    def _join(self, address: str, code: str | None) -> None:
        import ray

        environment = {} if code is None else {"runtime_env": {"working_dir": code, "excludes": LEFT_BEHIND}}
        try:
            with _own_handlers():
                ray.init(address=address, log_to_driver=False, logging_level="error", **environment)
                self._opened = True
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise InvalidSetting(f"--on: no run can be placed on the Ray at {address}: {_first_line(error)}") from None

    def _own_ip(self) -> str:
        import ray

        if self.address is not None and self.address.startswith("ray://"):
            return _ip_towards(*(_host_and_port(self.address) or ("127.0.0.1", 0)))
        return str(ray.util.get_node_ip_address())


@contextmanager
def _own_environment(folder: Path) -> Iterator[None]:
    """Ray's processes inherit this process's environment, and keep it: without credentials, and with our settings.

    What an actor leaves when it is killed, its process's credential among it, goes with the folder.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith(("AWS_", "MICROSFL_")):
            del os.environ[name]
    os.environ.update(OWN, TMPDIR=str(folder))
    if _is_first():
        write_private(folder / "token", _token())
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(folder / "token")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@cache
def _is_first() -> bool:
    """Whether nobody else has imported Ray in this process, and with it the token that there was."""
    return "ray" not in sys.modules


@cache
def _token() -> str:
    return new_secret()


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Ray takes SIGTERM for itself; whoever had it keeps it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _temporary() -> Path:
    short = len(tempfile.gettempdir()) <= LONGEST_TMP
    return Path(tempfile.mkdtemp(prefix="microsfl-", dir=None if short else "/tmp"))


def _host_and_port(address: str) -> tuple[str, int] | None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    return (host.strip("[]"), int(port)) if colon and host and port.isdecimal() and int(port) < 65536 else None


def _check_answers(address: str) -> None:
    """Ray itself would go on trying for a minute."""
    place = _host_and_port(address)
    if place is None:
        return
    try:
        socket.create_connection(place, ANSWER_S).close()
    except OSError as error:
        raise InvalidSetting(
            f"--on: nothing answers at {place[0]}:{place[1]} ({error.strerror or error}); is that the address of a Ray "
            "cluster's head, or of its Ray client server?"
        ) from None


def _ip_towards(host: str, port: int) -> str:
    """The address of this machine from which it sends to `host`; nothing is sent."""
    family, _, _, _, there = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as line:
        line.connect(there)
        return str(line.getsockname()[0])


def _fits(needs: Needs, node: Mapping[str, Any]) -> bool:
    return all(node["Resources"].get(name, 0.0) >= amount for name, amount in needs.all.items())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
