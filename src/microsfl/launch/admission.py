"""The federation of processes on this machine: each has a credential of its own, for as long as they are there.

Nothing of it is in the run folder or on a command line: the files are in a folder that only this user can read, which
goes away with the processes.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from ..trust.credential import Credential, kept_for
from ..trust.keys import OPERATOR, Federation, first
from ..trust.scopes import Role
from ..trust.secret import new_secret
from ..trust.tickets import forget, remember


class LocalFederation:
    """Its members are named before its coordinator starts, and get their credentials when that has an address."""

    tls_ca: str | None = None  # authorities (PEM) that its members trust, once its servers have certificates

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="microsfl-"))  # which nobody else can read
        self._name = name
        self._secrets: dict[str, str] = {}
        self._coordinator: str | None = None
        self._members = {OPERATOR: self._member(OPERATOR, Role.OPERATOR, ("*",))}

    def add(self, name: str, role: Role, acts_as: Iterable[str] | None = None) -> None:
        """A process of that name; acts_as: the participants that it is, if not that one."""
        self._members[name] = self._member(name, role, acts_as or (name,))

    def write(self) -> Path:
        """Make it; the folder to start the coordinator with."""
        Federation.new(self._name).with_first(self._members).write(self.folder)
        return self.folder

    def begin(self, coordinator: str) -> None:
        """The coordinator is there: write the credentials, and let this process and this user's others be operators."""
        self._coordinator = coordinator
        for name, secret in self._secrets.items():
            Credential(coordinator, name, secret, self.tls_ca).write(self.credential(name))
        operator = Credential(coordinator, OPERATOR, self._secrets[OPERATOR], self.tls_ca)
        operator.write(kept_for(coordinator))
        remember(operator)

    def credential(self, name: str) -> Path:
        """The file of a member's credential."""
        return self.folder / f"{name}.json"

    def close(self) -> None:
        if self._coordinator is not None:
            forget(self._coordinator)
            kept_for(self._coordinator).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _member(self, name: str, role: Role, acts_as: Iterable[str]) -> dict[str, object]:
        self._secrets[name] = new_secret()
        return first(role, self._secrets[name], time.time(), acts_as)
