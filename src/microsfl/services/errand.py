"""What takes torch, or the launcher's files: another process does it, so that the coordinator needs neither."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from typing import Any

from ..errors import OperationError, from_wire

LONGEST_LINE = 1 << 26

Json = dict[str, Any]


async def errand(function: str, question: Json, within_s: float) -> Json:
    """What `function`, "module:function" from JSON to JSON, answers.

    Raises:
        MicrosflError: when that is what the function raises.
        OperationError: when there is no answer in time, or the process ends without one; the log has what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "microsfl.launch.aside", function),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=_environment(),
        limit=LONGEST_LINE,
    )
    try:
        async with asyncio.timeout(within_s):
            answer = await _ask(process, question)
    except TimeoutError:
        raise OperationError(f"{function} had no answer within {within_s:g} s.") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if "error" in answer:
        raise from_wire(0, answer)
    return answer


async def _ask(process: asyncio.subprocess.Process, question: Json) -> Json:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(ConnectionError):  # it ended before it had read all: it has no answer then
        process.stdin.write(json.dumps(question).encode() + b"\n")
        await process.stdin.drain()
    answer = await process.stdout.readline()
    if not answer.endswith(b"\n"):
        raise OperationError(
            "The process that was asked ended without an answer; the coordinator's log has the details."
        )
    return dict(json.loads(answer))


def _environment() -> dict[str, str]:
    """This process's, without what is meant for it alone: the URL of its database, for one."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MICROSFL_", "AWS_"))}
