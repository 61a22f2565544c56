"""A federation's signing keys: a folder that only the coordinator reads, and what everybody may know of it.

The folder has one file, `federation.json`, which its owner alone may read. Keys are added at its end and taken
from its beginning: tokens are checked with all of them. The last one signs, as soon as all services have heard of it.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
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
OPERATOR = "operator"  # the identity that a federation begins with
TAKEN_OVER_S = 10.0  # within which every service that runs has heard of a new key: some heartbeats
SESSION_S = 12 * 3600.0  # the longest life of a token, that of a browser's session

Json = dict[str, Any]


@dataclass(frozen=True)
class Federation:
    """Its name, its private keys by their ids, oldest first, and the identities that it begins with.

    first: identity -> {role, acts_as, runs, hash of its secret, created_at}; the coordinator takes over those that its
    records do not have, or have from before. made_at: when each key was made, in UTC unix seconds.
    """

    name: str
    keys: Mapping[str, Ed25519PrivateKey]
    first: Mapping[str, Json]
    made_at: Mapping[str, float]

    @classmethod
    def new(cls, name: str, now: float | None = None) -> Self:
        kid, key = _new_key()
        return cls(name, {kid: key}, {}, {kid: time.time() if now is None else now})

    def with_new_key(self, now: float | None = None, *, at_once: bool = False) -> Self:
        """The same with one more key. Those are forgotten with which no token that lives can have been signed.

        at_once: forget all the others, and with them every token that was given: for a key that somebody else has.
        """
        now = time.time() if now is None else now
        kid, key = _new_key()
        superseded_at = dict(zip(self.keys, [*list(self.made_at.values())[1:], now], strict=True))
        kept = [] if at_once else [old for old in self.keys if superseded_at[old] > now - SESSION_S - TAKEN_OVER_S]
        keys = {**{old: self.keys[old] for old in kept}, kid: key}
        return type(self)(self.name, keys, self.first, {**{old: self.made_at[old] for old in kept}, kid: now})

    def with_first(self, first: Mapping[str, Json]) -> Self:
        return type(self)(self.name, self.keys, {**self.first, **first}, self.made_at)

    def signer(self, kid: str) -> Signer:
        return Signer(self.name, kid, self.keys[kid])

    @property
    def public(self) -> dict[str, Ed25519PublicKey]:
        return {kid: key.public_key() for kid, key in self.keys.items()}

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises InvalidSetting when there is none, or others may read it."""
        try:
            found = json.loads(read_private(folder / FILE))
            keys = {kid: Ed25519PrivateKey.from_private_bytes(_bytes(one["key"])) for kid, one in found["keys"].items()}
            if not keys:
                raise ValueError("no key")
            made_at = {kid: float(one["made_at"]) for kid, one in found["keys"].items()}
            return cls(str(found["name"]), keys, dict(found["first"]), made_at)
        except FileNotFoundError:
            raise InvalidSetting(
                f"{folder} is no federation: it has no {FILE}. Make one with `microsfl admin init {folder}`."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidSetting(f"{folder / FILE} cannot be read: {type(error).__name__}.") from None

    def write(self, folder: Path) -> None:
        """Raises StoreNotWritable."""
        keys = {
            kid: {"key": _text(key.private_bytes_raw()), "made_at": self.made_at[kid]} for kid, key in self.keys.items()
        }
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
        self._seen: tuple[int, int] | None = None
        self._now = self.now()

    def now(self) -> Federation:
        """Raises InvalidSetting when there is none, or none any more that can be read."""
        try:
            found = os.stat(self._file)
            seen = found.st_mtime_ns, found.st_ino  # it is replaced whole, so even in the same tick it is another file
        except OSError:
            seen = None
        if seen is None or seen != self._seen:
            self._now, self._seen = Federation.read(self._folder), seen
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


def _new_key() -> tuple[str, Ed25519PrivateKey]:
    return secrets.token_hex(4), Ed25519PrivateKey.generate()


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def first(role: Role, secret: str, now: float, acts_as: Iterable[str] = (ANY,), runs: Iterable[str] = (ANY,)) -> Json:
    """An entry of `Federation.first`."""
    return {
        "role": role.value, "acts_as": list(acts_as), "runs": list(runs), "hash": digest(secret), "created_at": now,
    }  # fmt: skip
