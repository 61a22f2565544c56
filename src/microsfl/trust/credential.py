"""A credential: what a process keeps to show who it is, in a file that its owner alone can read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from platformdirs import user_state_path

from ..errors import InvalidSetting, StoreNotWritable
from .files import read_private, write_private

HOME = "MICROSFL_HOME"
CREDENTIAL = "MICROSFL_CREDENTIAL"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Credential:
    """Of the identity `id` in a federation whose coordinator is at that URL.

    tls_ca: certificates (PEM) of the CAs that the federation's servers have theirs from; None: the system's.
    """

    coordinator: str
    id: str
    secret: str
    tls_ca: str | None = None

    def __repr__(self) -> str:
        return f"Credential({self.id!r} at {self.coordinator!r})"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises InvalidSetting when there is none, it is something else, or others may read it."""
        try:
            found = json.loads(read_private(path))
            known = {name: str(found[name]) for name in ("coordinator", "id", "secret")}
            authorities = found.get("tls_ca")
            return cls(**known, tls_ca=None if authorities is None else str(authorities))
        except FileNotFoundError:
            raise InvalidSetting(f"There is no credential at {path}; `microsfl enrol` makes one.") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidSetting(f"{path} is no credential: {type(error).__name__}.") from None

    def write(self, path: Path) -> None:
        """Raises StoreNotWritable."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(path, json.dumps(asdict(self)))
        except OSError as error:
            raise StoreNotWritable(f"The credential cannot be written to {path}: {error.strerror}.") from None


def kept_for(coordinator: str) -> Path:
    """Where this user keeps the credential for a coordinator, unless it is elsewhere."""
    parts = urlsplit(coordinator)
    host = "localhost" if parts.hostname in LOOPBACK else parts.hostname  # one machine, whichever name it goes by
    name = f"{host}-{parts.port or parts.scheme}".replace(":", "_")
    return home() / "credentials" / f"{name}.json"


def home() -> Path:
    """Where this user's own credentials and federations are; `MICROSFL_HOME` says otherwise."""
    return Path(os.environ.get(HOME) or user_state_path("microsfl"))
