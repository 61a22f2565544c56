"""Split federated learning on stateless split servers.

`import microsfl` costs nothing: torch is imported with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.remote_body import RemoteBody as RemoteBody
    from .launch.federation import Federation as Federation
    from .launch.loaded import Run as Run
    from .launch.loaded import load_run as load_run
    from .spec import RunSpec as RunSpec

__version__ = "0.1.0"
__all__ = ["Federation", "RemoteBody", "Run", "RunSpec", "__version__", "load_run"]

_HOMES = {
    "Federation": ".launch.federation",
    "RemoteBody": ".client.remote_body",
    "Run": ".launch.loaded",
    "RunSpec": ".spec",
    "load_run": ".launch.loaded",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'microsfl' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name], __name__), name)
