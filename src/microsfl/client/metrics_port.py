"""A port on which a client process shows its metrics: the only one that it ever opens, and only if told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..errors import PortInUse
from ..process import event
from ..telemetry.exposition import Exposition, Point


def show(host: str, port: int, points: Callable[[], Iterable[Point]]) -> str:
    """Answer on a thread of its own from now on; the URL.

    Raises:
        PortInUse: when the address cannot be had.
    """
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(port, host, Exposition(points).registry)
    except OSError as error:
        raise PortInUse(
            f"Cannot listen on {host}:{port} ({error.strerror}). Choose another with --metrics-port, or "
            "--metrics-port 0 for a free one."
        ) from None
    url = f"http://{host}:{server.server_port}/metrics"
    event("metrics", address=url)
    return url
