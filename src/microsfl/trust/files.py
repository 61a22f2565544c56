"""Files with secrets in them: made so that only their owner can read them, and refused when others can."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ..errors import InvalidSetting

GROUP_READS, OTHERS = 0o040, 0o077
ROOT = 0


def read_private(path: Path) -> str:
    """The file's text.

    Raises:
        FileNotFoundError: when there is none.
        InvalidSetting: when others than its owner may read or write it, or it cannot be read. A file of root's, read by
            somebody else, may be readable by its group: else nobody but root could read it.
    """
    try:
        with path.open("rb") as file:
            if os.name == "posix" and _others_may(os.fstat(file.fileno())):
                raise InvalidSetting(f"{path} holds a secret, and others may read it: `chmod 600 {path}`.")
            return file.read().decode()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path} cannot be read: {error}.") from None


def _others_may(found: os.stat_result) -> bool:
    # A cluster hands a secret to a process that is not root in a file of root's that the process's group may read.
    allowed = GROUP_READS if found.st_uid == ROOT != os.geteuid() else 0
    return bool(found.st_mode & OTHERS & ~allowed)


def write_private(path: Path, text: str | bytes, mode: int = 0o600) -> None:
    """Write it whole or not at all; nobody else can read it at any moment, unless the mode says so. Raises OSError."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
