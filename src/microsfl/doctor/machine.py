"""Checks of what is on this machine: Python, torch, packages, ports, disk, limits."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rich.filesize import decimal

from .finding import Finding

LEAST_PYTHON = (3, 11)
PORTS = {8000: "coordinator", 8100: "split server", 8200: "fed server"}
LITTLE_DISK, TOO_LITTLE_DISK = 2 * 10**9, 200 * 10**6
# A coordinator or split server has a connection or two to each client, and a store has files open.
FEW_FILES, TOO_FEW_FILES = 1024, 256

# What each extra of the package brings, as import names, and what is not there without it.
EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "run": (("matplotlib", "sklearn"), "`microsfl run` and `compare`, which draw plots and read the bundled digits"),
    "dashboard": (("plotly",), "charts on the dashboard"),
    "postgres": (("psycopg",), "records in PostgreSQL"),
    "notebook": (("pandas",), "metrics as DataFrames"),
    "tensorboard": (("tensorboard",), "tracking with TensorBoard"),
    "mlflow": (("mlflow",), "tracking with MLflow"),
    "otel": (("opentelemetry",), "traces"),
    "ray": (("ray",), "`microsfl run --on ray`"),
    "plan": (("simpy",), "`microsfl plan --simulate`"),
}


def python() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info < LEAST_PYTHON:
        yield Finding("python", "problem", f"Python {version}", "Use Python 3.11 or newer.")
    else:
        yield Finding("python", "ok", f"Python {version} at {sys.executable}")


def torch() -> Iterator[Finding]:
    """Its version, a small product that it computes, and the devices that it sees."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a library of the system's that it needs is an OSError
        what = f"torch cannot be imported: {error}"
        yield Finding("torch", "problem", what, "Install it: pip install torch (pytorch.org says which build).")
        return
    ones = torch.ones(8, 8)
    right = bool(torch.equal(ones @ ones, torch.full((8, 8), 8.0)))
    threads = f"{torch.get_num_threads()} threads"
    if not right:
        yield Finding("torch", "problem", f"torch {torch.__version__} computes a product wrongly", "Reinstall torch.")
        return
    yield Finding("torch", "ok", f"torch {torch.__version__} computes, with {threads}")
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if gpus:
        yield Finding("device", "ok", f"cpu, {', '.join(f'cuda:{n} ({name})' for n, name in enumerate(gpus))}")
    elif torch.backends.mps.is_available():
        yield Finding("device", "ok", "cpu, mps")
    else:
        yield Finding("device", "ok", "cpu alone: torch sees no GPU")


def extras() -> Iterator[Finding]:
    """One finding for each extra. Only without the first one a usual command does not work."""
    for extra, (modules, what) in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if not missing:
            yield Finding(f"extra {extra}", "ok", "installed")
            continue
        found = f"not installed ({', '.join(missing)}): no {what}"
        yield Finding(
            f"extra {extra}", "warning" if extra == "run" else "ok", found, f"pip install 'microsfl[{extra}]'"
        )


def ports() -> Iterator[Finding]:
    """The ports that roles listen on when nothing else is said, as somebody who listens would find them."""
    for port, role in PORTS.items():
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError as error:
                found = f"port {port} cannot be listened on ({error.strerror})"
                advice = f"If that is not your {role} already, start yours with another --port, or --port 0."
                yield Finding(f"port {port}", "warning", found, advice)
            else:
                yield Finding(f"port {port}", "ok", f"free, for a {role}")


def disk(folder: Path) -> Iterator[Finding]:
    """Room where run folders are made."""
    free = shutil.disk_usage(folder).free
    found = f"{decimal(free)} free at {folder}"
    advice = "A run keeps each round's weights and gradients: make room, or run `microsfl gc` now and then."
    if free < LITTLE_DISK:
        yield Finding("disk", "problem" if free < TOO_LITTLE_DISK else "warning", found, advice)
    else:
        yield Finding("disk", "ok", found)


def open_files() -> Iterator[Finding]:
    """How many files and connections a process may have open; servers raise it themselves as far as they may."""
    with suppress(ImportError):  # there is no such limit on this system
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard == resource.RLIM_INFINITY or hard >= FEW_FILES:
            yield Finding("open files", "ok", "unlimited" if hard == resource.RLIM_INFINITY else f"up to {hard:,}")
            return
        status = "problem" if hard < TOO_FEW_FILES else "warning"
        found = f"a process may open {hard:,} files and connections at most"
        advice = f"Raise the hard limit to {FEW_FILES} or more: ulimit -Hn, or LimitNOFILE of a systemd unit."
        yield Finding("open files", status, found, advice)  # type: ignore[arg-type]
