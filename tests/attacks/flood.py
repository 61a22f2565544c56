"""A client that floods: one request after the other on many connections, whatever it is answered.

Reads a port, a number of connections, and the bytes of a request in base64. Then `go` and `stop` lines begin and end
floods, and after `stop` it says in a line of JSON how often it got which status.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections import Counter


async def knock(port: int, request: bytes, seen: Counter[str], refused: asyncio.Event) -> None:
    refusals = 0
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while True:
                writer.write(request)
                status = (await reader.readline()).split()[1].decode()
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.lower().splitlines() if line[:15] == b"content-length:")
                await reader.readexactly(length)
                seen[status] += 1
                refusals += status == "429"
                if refusals == 2:  # it came again before it was told to
                    refused.set()
        except (OSError, EOFError, IndexError):
            seen["closed"] += 1


async def main() -> None:
    loop = asyncio.get_running_loop()

    async def line() -> str:
        return (await loop.run_in_executor(None, sys.stdin.readline)).strip()

    port, connections, request = int(await line()), int(await line()), base64.b64decode(await line())
    while await line() == "go":
        seen, refused = Counter[str](), asyncio.Event()
        tasks = [asyncio.create_task(knock(port, request, seen, refused)) for _ in range(connections)]
        await refused.wait()
        sys.stdout.write("flooding\n")
        sys.stdout.flush()
        await line()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        sys.stdout.write(json.dumps(seen) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
