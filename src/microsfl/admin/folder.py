"""A federation's folder, as whoever runs the coordinator makes it and gives it new keys."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..errors import InvalidSetting, StoreNotWritable
from ..spec import check_id
from ..trust.credential import Credential
from ..trust.keys import FILE, OPERATOR, Federation, first
from ..trust.scopes import Role
from ..trust.secret import new_secret
from ..trust.tokens import ANY, check_acts_as

OWNER_ONLY = 0o700
MEMBERS = tuple(one.value for one in (Role.CLIENT, Role.SPLIT_SERVER, Role.FED_SERVER, Role.VIEWER))


@dataclass(frozen=True)
class Member:
    """Who is in a federation from the beginning, without an invitation; acts_as: see `Caller`; empty: its own id."""

    role: Role
    id: str
    acts_as: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ROLE:ID, or ROLE:ID:ID,ID,… for one that acts as others.

        Raises:
            InvalidSetting, InvalidId: when it is none.
        """
        role, _, rest = text.partition(":")
        name, _, others = rest.partition(":")
        acts_as = tuple(others.split(",")) if others else ()
        if role not in MEMBERS:
            raise InvalidSetting(f"--member: '{text:.80}' is not ROLE:ID with a role of {', '.join(MEMBERS)}.")
        for one in acts_as:
            check_id(one.removesuffix(ANY), "member")
        check_acts_as(role, acts_as)
        return cls(Role(role), check_id(name, "member"), acts_as)


def begin(
    folder: Path,
    name: str | None,
    coordinator: str,
    credential: Path,
    authorities: str | None = None,
    members: Sequence[Member] = (),
) -> Federation:
    """Make a federation with a signing key and an operator, whose credential is written to that file.

    authorities: PEM text of the CA of the coordinator's certificate; None: one that systems trust. members: who is in
    it as well; the credential of each is ID.json beside the operator's.

    Raises:
        InvalidSetting, InvalidId: when there is a federation or a credential already, or a name cannot be one.
        StoreNotWritable: when one of them cannot be written.
    """
    name = check_id(name or folder.resolve().name, "federation name")
    if (folder / FILE).exists():
        raise InvalidSetting(f"{folder} is a federation already. `microsfl admin rotate-keys` gives it a new key.")
    all_members = [Member(Role.OPERATOR, OPERATOR, (ANY,)), *members]
    if len({one.id for one in all_members}) < len(all_members):
        raise InvalidSetting("--member: two of them have the same id, or one is called operator, as the first one is.")
    files = {
        one.id: credential if one.id == OPERATOR else credential.with_name(f"{one.id}.json") for one in all_members
    }
    if len(set(files.values())) < len(files):
        raise InvalidSetting(
            f"--member: the operator's credential is in {credential}, where that of a member would be."
        )
    for file in files.values():
        free(file)
    secrets, now = {one.id: new_secret() for one in all_members}, time.time()
    made = Federation.new(name).with_first(
        {one.id: first(one.role, secrets[one.id], now, one.acts_as or (one.id,)) for one in all_members}
    )
    try:
        folder.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
        folder.chmod(OWNER_ONLY)
    except OSError as error:
        raise StoreNotWritable(f"The folder {folder} cannot be made: {error.strerror}.") from None
    # The credentials first: a federation whose operator nobody can be would have to be made again.
    try:
        for one, file in files.items():
            Credential(coordinator, one, secrets[one], authorities).write(file)
        made.write(folder)
    except BaseException:
        for file in files.values():
            file.unlink(missing_ok=True)
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
