"""`python -m microsfl`: the command `microsfl`, as the launcher starts the roles."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress
from typing import NoReturn

from .launch.forks import Forks


def run() -> NoReturn:
    """Run the command line, and leave at once when it is done.

    Python would spend half a second of CPU in each process on taking torch apart, while daemon threads may still be
    computing in it. What has to stay is in the store or the database by then.
    """
    try:
        with ExitStack() as stack:
            forks = None
            if (sys.argv[1:2] == ["run"] and "--simulate" not in sys.argv) or sys.argv[1:2] == ["up"]:
                # What they wait for longest is what its processes import: that begins before anything else.
                forks = stack.enter_context(Forks())
            from .cli import main

            main(forks=forks)
    except SystemExit as end:
        with suppress(OSError):  # whoever read the output is gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(int(end.code or 0))


if __name__ == "__main__":
    run()
