"""Split federated learning on stateless split servers.

`import microsfl` costs nothing: torch is imported with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.remote_body import RemoteBody as RemoteBody
    from .finished.run import Run as Run
    from .finished.run import load_run as load_run
    from .finished.training import run as run
    from .launch.federation import Federation as Federation
    from .launch.ray.federation import RayFederation as RayFederation
    from .spec import RunSpec as RunSpec

__version__ = "0.1.0"
__all__ = ["Federation", "RayFederation", "RemoteBody", "Run", "RunSpec", "__version__", "load_run", "run"]

_HOMES = {
    "Federation": ".launch.federation",
    "RayFederation": ".launch.ray.federation",
    "RemoteBody": ".client.remote_body",
    "Run": ".finished.run",
    "RunSpec": ".spec",
    "load_run": ".finished.run",
    "run": ".finished.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'microsfl' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name], __name__), name)
