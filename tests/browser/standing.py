"""`microsfl up` as a process of its own, and a split server that joins it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microsfl.launch.control import Control

DEADLINE_S = 60.0


def _started(arguments: list[str]) -> tuple[subprocess.Popen[str], str]:
    """The process, once it says that it is ready, and the last word of that line."""
    process = subprocess.Popen([sys.executable, "-m", "microsfl", *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if " ready" not in line:
        process.kill()
        raise AssertionError(f"{arguments[0]} is not ready: {line!r}")
    return process, line.split()[-1]


def _end(process: subprocess.Popen[str], how: signal.Signals) -> None:
    process.send_signal(how)
    try:
        process.wait(DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


@contextmanager
def up(folder: Path, *arguments: str, port: int = 0) -> Iterator[str]:
    """The dashboard's URL, while every role runs."""
    process, url = _started(["up", "--folder", str(folder), "--port", str(port), *arguments])
    try:
        yield url
    finally:
        _end(process, signal.SIGTERM)


@contextmanager
def split_server(folder: Path, coordinator: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """One more, that nobody starts again. Its store is that of the others."""
    store = f"file://{folder}/store/body"
    process, _ = _started(
        ["split-server", "--coordinator", coordinator, "--id", name, "--port", "0", "--store-url", store]
    )
    try:
        yield process
    finally:
        _end(process, signal.SIGKILL)


def login_link(url: str) -> str:
    """An address that logs a browser in, asked for by whoever started the roles."""
    return Control(url, "").login_link()


def processes(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "processes.json").read_text()))
