"""What every role does as a process: log structured lines, say that it is ready, and end with its parent.

Standard output carries the ready line and nothing else; log lines are JSON on standard error.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger("microsfl")

EXIT_GRACE_S = 5.0


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, role, event, and whatever was passed as `extra={"data": {…}}`."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "role": self.role,
            "event": record.getMessage(),
            **getattr(record, "data", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@contextmanager
def importing() -> Iterator[None]:
    """For a block that imports much: what is imported stays, so it is never searched for garbage.

    The search would take a fifth of the time now, and later a tenth of a second now and then.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def start_logging(role: str, level: str) -> None:
    """Send the process's log lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(role))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # retries and fail-overs are ours to report
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it repeats in prose that a server starts and stops


def event(name: str, level: int = logging.INFO, **data: Any) -> None:
    """Log `name` with its data as one structured line."""
    log.log(level, name, extra={"data": data})


def announce(role: str, what: str) -> None:
    """Print the one ready line, as in `microsfl split-server ready at http://127.0.0.1:8100`."""
    print(f"microsfl {role} ready {what}", flush=True)  # noqa: T201  (the ready line is the interface)


def end_with_parent() -> None:
    """Terminate this process when its standard input closes: the parent held the other end, and is gone."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        # A process that does not manage to stop in time must still not outlive its parent.
        threading.Timer(EXIT_GRACE_S, os._exit, args=(1,)).start()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
