"""A federation's signing keys: a folder that only the coordinator reads, and what everybody may know of it.

The folder has one file, `federation.json`, which its owner alone may read. Keys are added at its end and taken
from its beginning: tokens are signed with the last one, and checked with all of them.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import InvalidSetting, StoreNotWritable
from .files import read_private, write_private
from .scopes import Role
from .secret import digest
from .tokens import ANY, Signer

FILE = "federation.json"
KEYS_KEPT = 2  # the newest, and the one before it, with which tokens that still live were signed

Json = dict[str, Any]


@dataclass(frozen=True)
class Federation:
    """Its name, its private keys by their ids, oldest first, and the identities that it begins with.

    first: identity -> {role, acts_as, runs, hash of its secret, created_at}; the coordinator takes over those that its
    records do not have, or have from before.
    """

    name: str
    keys: Mapping[str, Ed25519PrivateKey]
    first: Mapping[str, Json]

    @classmethod
    def new(cls, name: str) -> Self:
        return cls(name, _with_new_key({}), {})

    def with_new_key(self) -> Self:
        """The same with one more key, which signs from now on; older ones than the last are forgotten."""
        return type(self)(self.name, _with_new_key(self.keys), self.first)

    def with_first(self, first: Mapping[str, Json]) -> Self:
        return type(self)(self.name, self.keys, {**self.first, **first})

    @property
    def signer(self) -> Signer:
        kid = list(self.keys)[-1]
        return Signer(self.name, kid, self.keys[kid])

    @property
    def public(self) -> dict[str, Ed25519PublicKey]:
        return {kid: key.public_key() for kid, key in self.keys.items()}

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises InvalidSetting when there is none, or others may read it."""
        try:
            found = json.loads(read_private(folder / FILE))
            keys = {kid: Ed25519PrivateKey.from_private_bytes(_bytes(text)) for kid, text in found["keys"].items()}
            if not keys:
                raise ValueError("no key")
            return cls(str(found["name"]), keys, dict(found["first"]))
        except FileNotFoundError:
            raise InvalidSetting(
                f"{folder} is no federation: it has no {FILE}. Make one with `microsfl admin init {folder}`."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidSetting(f"{folder / FILE} cannot be read: {type(error).__name__}.") from None

    def write(self, folder: Path) -> None:
        """Raises StoreNotWritable."""
        keys = {kid: _text(key.private_bytes_raw()) for kid, key in self.keys.items()}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(folder / FILE, json.dumps({"name": self.name, "keys": keys, "first": dict(self.first)}))
        except OSError as error:
            raise StoreNotWritable(f"The federation cannot be written to {folder}: {error.strerror}.") from None


class LivingFederation:
    """The federation in a folder, read again when its file has changed: a new key needs no restart."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._folder = folder
        self._read_at = 0
        self._now = self.now()

    def now(self) -> Federation:
        """Raises InvalidSetting when there is none, or none any more that can be read."""
        changed_at = os.stat(self._file).st_mtime_ns if self._file.exists() else 0
        if changed_at != self._read_at or not changed_at:
            self._now, self._read_at = Federation.read(self._folder), changed_at
        return self._now


def jwks(keys: Mapping[str, Ed25519PublicKey]) -> Json:
    """Public keys as a JSON Web Key Set (RFC 7517, RFC 8037)."""
    return {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "use": "sig",
                "alg": "EdDSA",
                "kid": kid,
                "x": _text(key.public_bytes_raw()),
            }
            for kid, key in keys.items()
        ]
    }


def from_jwks(value: Any) -> dict[str, Ed25519PublicKey]:
    """Raises ValueError when it is no set of Ed25519 keys."""
    try:
        found = {
            str(one["kid"]): Ed25519PublicKey.from_public_bytes(_bytes(one["x"]))
            for one in value["keys"]
            if one["kty"] == "OKP" and one["crv"] == "Ed25519"
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no key set: {type(error).__name__}") from None
    if not found:
        raise ValueError("a key set without a key")
    return found


def _with_new_key(keys: Mapping[str, Ed25519PrivateKey]) -> dict[str, Ed25519PrivateKey]:
    new = {**keys, secrets.token_hex(4): Ed25519PrivateKey.generate()}
    return dict(list(new.items())[-KEYS_KEPT:])


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def first(role: Role, secret: str, now: float, acts_as: Iterable[str] = (ANY,), runs: Iterable[str] = (ANY,)) -> Json:
    """An entry of `Federation.first`."""
    return {
        "role": role.value, "acts_as": list(acts_as), "runs": list(runs), "hash": digest(secret), "created_at": now,
    }  # fmt: skip
