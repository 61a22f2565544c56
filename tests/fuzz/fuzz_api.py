"""Many requests to every service: `python -m tests.fuzz.fuzz_api 300`, which are over 20,000 (`microsfl[fuzz]`).

Prints what was answered how often, and everything that must not be: a 5xx, a traceback, no answer within 30 seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.attacks.estate import estate
from tests.fuzz.api_target import fuzz


def main(examples: int, services: tuple[str, ...], number: int = 0) -> int:
    with tempfile.TemporaryDirectory() as folder, estate(Path(folder)) as it:
        broken = 0
        for service in services or tuple(it.urls):
            began = time.monotonic()
            found = fuzz(it, service, examples, number)
            took = time.monotonic() - began
            slowest = f"{found.slowest[0]:.2f} s ({found.slowest[1]})"
            print(f"{service}: {found.requests} requests in {took:.0f} s, slowest {slowest}")  # noqa: T201
            for (_, status), count in sorted(found.statuses.items()):
                print(f"  {status}: {count}")  # noqa: T201
            for one in found.broken[:20]:
                print(f"  BROKEN {one}")  # noqa: T201
            broken += len(found.broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), tuple(sys.argv[2:])))
