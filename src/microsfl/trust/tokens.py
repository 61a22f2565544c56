"""Access tokens: signed by the coordinator, checked by every service without asking anybody.

A token is a JSON Web Token (RFC 7519) signed with Ed25519 (RFC 8037). No other algorithm is ever accepted, whatever a
token's header says. A service needs nothing for the check but the federation's public keys; it also remembers who was
revoked, as far as it has heard of that, and a token's short life bounds how long it may not have heard.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import jwt
from cachetools import LRUCache
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import Forbidden, InvalidSetting, OperationError, Unauthenticated
from .scopes import GRANTS, Role, Scope

ALGORITHM = "EdDSA"
LIFE_S = 300
LEEWAY_S = 30  # by which clocks may differ
LONGEST_TOKEN = 4096  # characters
TOKENS_KEPT = 4096
ANY = "*"


class Audience(StrEnum):
    """Which services a token is for. What one of them sees opens none of the others: together, the two areas of the
    store would tell more than each."""

    COORDINATOR = "coordinator"
    BODY = "body"  # split servers
    CLIENT_SIDE = "client-side"  # the fed server


@dataclass(frozen=True)
class Caller:
    """Who asks, as a token says.

    id: of the identity. acts_as: the participants that it may be; one that ends in `*` stands for all that begin so, as
    for the replicas that a cluster starts under names of its own. runs: those that it was invited to; `*`: all.
    """

    id: str
    role: Role
    acts_as: frozenset[str]
    runs: frozenset[str]

    def may(self, scope: Scope) -> bool:
        return scope is Scope.PUBLIC or scope in GRANTS[self.role]

    def must_be(self, participant: str) -> None:
        """Raises Forbidden unless the caller may act as that participant."""
        if participant not in self.acts_as and not any(
            participant.startswith(one[:-1]) for one in self.acts_as if one.endswith(ANY)
        ):
            raise Forbidden(f"'{self.id}' may not act as '{participant}'.")

    def must_be_in(self, run: str) -> None:
        """Raises Forbidden unless the caller was invited to that run."""
        if not self.is_in(run):
            raise Forbidden(f"'{self.id}' is not invited to run '{run}'.")

    def is_in(self, run: str) -> bool:
        return ANY in self.runs or run in self.runs


@dataclass(frozen=True)
class Signer:
    """A private key of a federation, with its name."""

    federation: str
    kid: str
    key: Ed25519PrivateKey

    def token(self, caller: Caller, audience: Audience, life_s: float = LIFE_S, now: float | None = None) -> str:
        """An access token for that caller."""
        now = time.time() if now is None else now
        claims = {
            "iss": self.federation,
            "aud": audience.value,
            "sub": caller.id,
            "role": caller.role.value,
            "acts_as": sorted(caller.acts_as),
            "runs": sorted(caller.runs),
            "iat": now,
            "exp": now + life_s,
            "jti": secrets.token_hex(8),
        }
        return jwt.encode(claims, self.key, ALGORITHM, headers={"kid": self.kid})


def check_acts_as(role: str, names: Iterable[str]) -> None:
    """Whether an identity of that role may be given others that it acts as.

    Raises:
        InvalidSetting: when it may not.
    """
    given = list(names)
    if given and role not in (Role.CLIENT, Role.SPLIT_SERVER):
        raise InvalidSetting(f"acts_as: only clients and split servers act as others; a {role} is itself.")
    if role == Role.CLIENT and any(one.endswith(ANY) for one in given):
        raise InvalidSetting("acts_as: each client is a data owner, and is named; only split servers have patterns.")


class Verifier:
    """Checks tokens for `audience` with public keys alone, once it has them. For any number of threads."""

    def __init__(self, audience: Audience, clock: Callable[[], float] = time.time) -> None:
        self.audience = audience
        self._federation: str | None = None
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._revoked: dict[str, float] = {}
        self._clock = clock
        self._known: LRUCache[str, tuple[Caller, float, float]] = LRUCache(TOKENS_KEPT)
        self._lock = threading.Lock()

    def learn(self, federation: str, keys: Mapping[str, Ed25519PublicKey], revoked: Mapping[str, float]) -> None:
        """From now on, tokens of this federation are right that these keys signed, but for those which an identity was
        given before the time at which it was revoked."""
        with self._lock:
            if (federation, keys.keys()) != (self._federation, self._keys.keys()):
                self._known.clear()
            self._federation, self._keys, self._revoked = federation, dict(keys), dict(revoked)

    @property
    def kids(self) -> tuple[str, ...]:
        """The names of the keys that it knows, oldest first."""
        return tuple(self._keys)

    def verify(self, token: str) -> Caller:
        """Who the token is of.

        Raises:
            Unauthenticated: when it is none, is not signed by this federation, is over, or was revoked.
            OperationError: when there are no keys yet.
        """
        now = self._clock()
        with self._lock:
            if not self._keys:
                raise OperationError("This server has not had the federation's keys from its coordinator yet.")
            known = self._known.get(token)
        if known is None:
            known = self._read(token)
            with self._lock:
                self._known[token] = known
        caller, issued_at, ends_at = known
        if now > ends_at + LEEWAY_S:
            raise Unauthenticated("The token is over; get a new one.")
        if now < issued_at - LEEWAY_S:
            raise Unauthenticated("The token is of the future: compare the clocks of both machines.")
        if issued_at <= self._revoked.get(caller.id, -1.0):
            raise Unauthenticated(f"The credential of '{caller.id}' was revoked.")
        return caller

    def _read(self, token: str) -> tuple[Caller, float, float]:
        if len(token) > LONGEST_TOKEN:
            raise Unauthenticated("The token is too long.")
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._keys.get(kid) if isinstance(kid, str) else None
            if key is None:
                raise Unauthenticated("The token is not signed with a key of this federation.")
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self.audience,
                issuer=self._federation,
                # When it begins and ends is compared with this process's clock above, each time.
                options={
                    "require": ["iss", "aud", "sub", "iat", "exp", "jti"], "verify_exp": False, "verify_iat": False,
                },
            )  # fmt: skip
            return _caller(claims), float(claims["iat"]), float(claims["exp"])
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise Unauthenticated(f"The token is not valid: {type(error).__name__}.") from None


def named_in(token: str) -> Caller:
    """Whom a token says that it is of. Unchecked: for whoever was given it.

    Raises:
        Unauthenticated: when it is none.
    """
    try:
        claims = token.split(".")[1]
        return _caller(json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4))))
    except (IndexError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unauthenticated(f"The token is not valid: {type(error).__name__}.") from None


def _caller(claims: Mapping[str, Any]) -> Caller:
    return Caller(str(claims["sub"]), Role(claims["role"]), _names(claims["acts_as"]), _names(claims["runs"]))


def _names(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError("not a list of names")
    names: Iterable[str] = value
    return frozenset(names)
