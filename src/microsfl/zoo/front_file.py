"""The file that a front begins with. Imports no torch: its hash is wanted before anything starts."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import InvalidSetting


def read_front(path: str) -> tuple[bytes, str]:
    """(content, its SHA-256 in hexadecimal). Raises InvalidSetting when there is no file that can be read."""
    try:
        if not Path(path).is_file():  # nor will anything be read that has no end
            raise InvalidSetting(f"The front's weights '{path}' are not there; give the path of a safetensors file.")
        content = Path(path).read_bytes()
    except OSError as error:
        raise InvalidSetting(f"The front's weights '{path}' cannot be read: {error.strerror}.") from None
    return content, hashlib.sha256(content).hexdigest()
