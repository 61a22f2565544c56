"""What each role listens to in its environment."""

from __future__ import annotations

from microsfl.config import (
    ClientSettings,
    CoordinatorSettings,
    FedServerSettings,
    ProcessSettings,
    SplitServerSettings,
)

SETTINGS: dict[str, type[ProcessSettings]] = {
    "coordinator": CoordinatorSettings,
    "split-server": SplitServerSettings,
    "fed-server": FedServerSettings,
    "client": ClientSettings,
}
# `microsfl run` is no role; it listens to what every command that calls a coordinator has.
RUN = {"MICROSFL_CREDENTIAL", "MICROSFL_TLS_CA", "MICROSFL_INSECURE_HTTP"}
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL_S3"}


def variables(role: str) -> set[str]:
    """Those that a process of the role listens to."""
    own = {f"MICROSFL_{name.upper()}" for name in SETTINGS[role].model_fields} if role in SETTINGS else RUN
    return own | (AWS if role in ("split-server", "fed-server") else set())


def unknown(role: str, names: set[str]) -> set[str]:
    return names - variables(role) - ({"POD_IP"} if role == "split-server" else set())
