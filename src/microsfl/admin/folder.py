"""A federation's folder, as whoever runs the coordinator makes it and gives it new keys."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..errors import InvalidSetting, StoreNotWritable
from ..spec import check_id
from ..trust.credential import Credential
from ..trust.keys import FILE, OPERATOR, Federation, first
from ..trust.scopes import Role
from ..trust.secret import new_secret

OWNER_ONLY = 0o700


def begin(
    folder: Path, name: str | None, coordinator: str, credential: Path, authorities: str | None = None
) -> Federation:
    """Make a federation with a signing key and an operator, whose credential is written to that file.

    authorities: PEM text of the CA of the coordinator's certificate; None: one that systems trust.

    Raises:
        InvalidSetting, InvalidId: when there is a federation or a credential already, or the name cannot be one.
        StoreNotWritable: when either cannot be written.
    """
    name = check_id(name or folder.resolve().name, "federation name")
    if (folder / FILE).exists():
        raise InvalidSetting(f"{folder} is a federation already. `microsfl admin rotate-keys` gives it a new key.")
    free(credential)
    secret = new_secret()
    made = Federation.new(name).with_first({OPERATOR: first(Role.OPERATOR, secret, time.time())})
    try:
        folder.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
        folder.chmod(OWNER_ONLY)
    except OSError as error:
        raise StoreNotWritable(f"The folder {folder} cannot be made: {error.strerror}.") from None
    # The credential first: a federation whose operator nobody can be would have to be made again.
    Credential(coordinator, OPERATOR, secret, authorities).write(credential)
    try:
        made.write(folder)
    except BaseException:
        credential.unlink(missing_ok=True)
        raise
    return made


def rotate_keys(folder: Path, *, at_once: bool = False) -> Federation:
    """Give the federation a new signing key; its coordinator takes that over while it runs.

    at_once: forget all other keys, and with them every token that was given.

    Raises:
        InvalidSetting: when there is no federation.
        StoreNotWritable: when it cannot be written.
    """
    changed = Federation.read(folder).with_new_key(at_once=at_once)
    changed.write(folder)
    return changed


def free(credential: Path) -> None:
    """Check, before a secret is given that is not given again, that it can be kept there.

    Raises:
        InvalidSetting: when there is a credential already.
        StoreNotWritable: when none can be written.
    """
    if credential.exists():
        raise InvalidSetting(f"There is a credential at {credential} already; name another file with --credential.")
    try:
        credential.parent.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreNotWritable(f"The folder {credential.parent} cannot be made: {error.strerror}.") from None
    if not os.access(credential.parent, os.W_OK | os.X_OK):
        raise StoreNotWritable(f"Nothing can be written to the folder {credential.parent}.")
