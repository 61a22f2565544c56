"""Processor time of other processes, and this machine in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from ..launch.federation import cores

TASKS = "/proc/{pid}/task"
NANO = 1e-9


def processor_s(pid: int) -> float | None:
    """Seconds that all threads of a process have been on a core; None where the system does not say (not Linux).

    To the nanosecond, from schedstat: the ticks of `stat` are 10 ms, as long as a short round.
    """
    total = 0
    try:
        for task in Path(TASKS.format(pid=pid)).iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return total * NANO


def resident_bytes(pid: int) -> int:
    """Memory that a process has; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def machine() -> str:
    """This machine, for who reads a calibration later."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{_model()}, {cores()} of {os.cpu_count()} cores, {versions}"


def _model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
