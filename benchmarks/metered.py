"""A split server for `metrics.py`: STORE_URL, 1 or 0 for metrics, and perhaps a collector and the share to trace.

Without metrics, what counts requests is taken out of the app, and what counts store operations does nothing.
"""

from __future__ import annotations

import sys

from microsfl.config import SplitServerSettings
from microsfl.device import use_threads, warm_up
from microsfl.services.connections import connections_of
from microsfl.services.http import listen, serve
from microsfl.services.replica import create_app
from microsfl.services.split_server import create_replica
from microsfl.store.objects import open_store
from microsfl.telemetry.opening import open_traces

LIMIT_BYTES = 64_000_000


def main(store_url: str, metered: str, endpoint: str | None = None, ratio: str = "0") -> None:
    use_threads(1)
    warm_up()
    store = open_store(store_url)
    settings = SplitServerSettings(port=0, store_url=store_url, allow_models=("benchmarks.models:narrow",))
    replica = create_replica(settings, store, open_traces(endpoint, float(ratio), "split-server", None))
    replica.compute.submit(use_threads, 1)
    app = create_app(replica, LIMIT_BYTES)
    if metered == "0":
        app.user_middleware.clear()
        store.tally.add = lambda *_, **__: None  # type: ignore[method-assign]
    serve(app, listen(settings), connections_of(settings), role="split-server")


if __name__ == "__main__":
    main(*sys.argv[1:])
