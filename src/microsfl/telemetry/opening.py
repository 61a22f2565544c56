"""Whether a process is followed, and by what."""

from __future__ import annotations

from ..errors import InvalidSetting
from .traces import Traces


def open_traces(endpoint: str | None, ratio: float, role: str, instance: str | None) -> Traces | None:
    """Where the process's spans go; None without an endpoint.

    Raises:
        InvalidSetting: when opentelemetry is not installed.
    """
    if endpoint is None or not ratio:
        return None
    try:
        from .otel import Otel
    except ImportError as error:
        raise InvalidSetting(
            f"otel_endpoint is set and the Python package '{error.name}' is not installed. It comes with: "
            "pip install 'microsfl[otel]'."
        ) from None
    return Otel(endpoint, ratio, role, instance)
