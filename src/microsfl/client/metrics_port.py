"""A port on which a client process shows its metrics: the only one that it ever opens, and only if told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..config import ClientSettings, url_of
from ..errors import PortInUse
from ..process import event
from ..telemetry.exposition import Exposition, Point
from ..trust.tls import Inbound


def show(settings: ClientSettings, points: Callable[[], Iterable[Point]]) -> str:
    """Answer on a thread of its own from now on; the URL.

    Raises:
        PortInUse: when the address cannot be had.
        InvalidSetting: when a file of its certificates is wrong.
    """
    from prometheus_client import start_http_server

    host, port = settings.metrics_host, settings.metrics_port or 0
    tls: dict[str, Any] = {}
    if Inbound.of(settings) is not None:
        tls = {"certfile": settings.tls_cert, "keyfile": settings.tls_key or settings.tls_cert}
        if settings.tls_client_ca is not None:
            tls |= {"client_cafile": settings.tls_client_ca, "client_auth_required": True}
    try:
        server, _ = start_http_server(port, host, Exposition(points).registry, **tls)
    except OSError as error:
        raise PortInUse(
            f"Cannot listen on {host}:{port} ({error.strerror}). Choose another with --metrics-port, or "
            "--metrics-port 0 for a free one."
        ) from None
    url = f"{url_of(settings.scheme, host, server.server_port)}/metrics"
    event("metrics", address=url)
    return url
