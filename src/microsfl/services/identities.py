"""Who may take part: what the coordinator knows of identities, and what it gives them."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..config import CoordinatorSettings, is_loopback, url_of
from ..errors import ClientNotFound, Forbidden, InvalidSetting, Unauthenticated
from ..records import Entry, Identity, Invitation, Records
from ..trust.credential import Credential, home, kept_for
from ..trust.keys import FILE, OPERATOR, SESSION_S, TAKEN_OVER_S, Federation, LivingFederation, first, jwks
from ..trust.scopes import Role
from ..trust.secret import digest, new_secret
from ..trust.tls import Outbound
from ..trust.tokens import ANY, LIFE_S, Audience, Caller, Signer, Verifier
from .api import TrustJson
from .insist import PATIENCE_S, insist
from .login_codes import LoginCodes

LINK_S = 60.0
# Where each role has business.
AUDIENCES: Mapping[Role, frozenset[Audience]] = {
    Role.OPERATOR: frozenset(Audience),
    Role.VIEWER: frozenset(Audience),  # metrics and health of all services
    Role.CLIENT: frozenset(Audience),
    Role.SPLIT_SERVER: frozenset({Audience.COORDINATOR}),
    Role.FED_SERVER: frozenset({Audience.COORDINATOR}),
}


class Identities:
    """Kept in memory, and written to the records before anybody hears of a change. For the event loop's thread.

    Raises, from every coroutine:
        StoreUnavailable: when the records could not be written; then nothing has changed.
    """

    def __init__(
        self,
        records: Records,
        living: LivingFederation,
        clock: Callable[[], float] = time.time,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._records, self._living, self._clock, self._patience_s = records.identities, living, clock, patience_s
        self._changing = asyncio.Lock()
        self.note: Callable[[Entry], None] = lambda _: None  # what the audit trail is to say of the keys
        federation = living.now()
        self._known = {one.id: one for one in self._records.all()}
        named = [
            Identity(name, one["role"], tuple(one["acts_as"]), tuple(one["runs"]), one["created_at"], one["hash"])
            for name, one in federation.first.items()
        ]
        known = self._known
        new = [one for one in named if one.id not in known or known[one.id].created_at < one.created_at]
        self._records.save(new, *(self._entry("identity taken over", "federation", one) for one in new))
        self._known |= {one.id: one for one in new}
        self.verifier = Verifier(Audience.COORDINATOR, clock)
        self.codes = LoginCodes(clock)
        self._noticed_at = dict.fromkeys(federation.keys, clock())
        self._changed()

    def all(self) -> list[Identity]:
        """By id."""
        return [self._known[name] for name in sorted(self._known)]

    def caller(self, identity: Identity) -> Caller:
        return Caller(identity.id, Role(identity.role), frozenset(identity.acts_as), frozenset(identity.runs))

    def invited(self, participant: str, run: str) -> bool:
        """Whether some identity that has a credential may act as that participant in that run.

        Those count that were invited to act as it, by its name. Where there is none, as on a machine whose processes
        are all one user's, those count that may act as anybody.
        """
        hosts = self._hosts[participant if participant in self._hosts else ANY]
        return any(caller.is_in(run) for caller in hosts)

    @property
    def revoked(self) -> dict[str, float]:
        """When each identity was last revoked: no token that it was given before then is right."""
        return {one.id: one.revoked_at for one in self._known.values() if one.revoked_at is not None}

    def refresh(self) -> None:
        """Take over what has changed in the federation's folder: its keys."""
        keys = self._living.now().keys
        if keys.keys() != self._noticed_at.keys():
            now = self._clock()
            said = {"keys": list(keys), "before": list(self._noticed_at)}
            self.note(Entry(now, "federation", "keys changed", self._living.now().name, said))
            self._noticed_at = {kid: self._noticed_at.get(kid, now) for kid in keys}
            self._teach()

    async def invite(
        self, name: str, role: Role, acts_as: Iterable[str], runs: Iterable[str], expires_s: float, by: str
    ) -> tuple[str, float]:
        """A one-time token by which `name` can enrol, and when it ends. Of an identity that there is, its credential
        goes on until then.

        by: the identity that asks, here and below.

        Raises:
            InvalidSetting: when there is an identity of that name with another role.
        """
        async with self._changing:
            now, known = self._clock(), self._known.get(name)
            if known is not None and known.role != role:
                raise InvalidSetting(f"id: '{name}' is a {known.role} already; choose another one.")
            one = Identity(name, role, tuple(acts_as), tuple(runs), now)
            if known is not None:
                one = replace(known, acts_as=one.acts_as, runs=one.runs)
            token = new_secret()
            invitation = Invitation(digest(token), name, now, now + expires_s)
            await insist(
                partial(self._records.invite, one, invitation, self._entry("invitation", by, one)), self._patience_s
            )
            self._known[name] = one
            self._changed()
            return token, invitation.expires_at

    async def enrol(self, token: str) -> tuple[Identity, str]:
        """The identity that the token invites, with a new secret.

        Raises:
            Unauthenticated: when it is no such token, is over, or was used.
        """
        async with self._changing:
            hashed, now = digest(token), self._clock()
            found = await insist(partial(self._records.invitation, hashed), self._patience_s)
            known = None if found is None else self._known.get(found.identity)
            if found is None or known is None or found.used_at is not None or now > found.expires_at:
                raise Unauthenticated("The invitation is not one of this federation, is over, or was used.")
            secret = new_secret()
            one = replace(known, secret_hash=digest(secret), next_hash=None)
            entry = self._entry("enrolment", one.id, one)
            if not await insist(partial(self._records.enrol, one, hashed, now, entry), self._patience_s):
                raise Unauthenticated("The invitation was used.")
            self._known[one.id] = one
            self._changed()
            return one, secret

    async def rotate(self, name: str, secret: str) -> str:
        """A new secret; the old one is right until the new one is first used, as the answer may be lost.

        Raises:
            Unauthenticated: when the old one is not right.
        """
        async with self._changing:
            known = self._checked(name, secret)
            new = new_secret()
            one = replace(known, secret_hash=digest(secret), next_hash=digest(new))
            await self._keep(one, self._entry("rotation", name, one))
            return new

    async def revoke(self, name: str, by: str) -> Identity:
        """From now on, neither its credential nor a token that it has is right anywhere, nor is an invitation of it.

        Raises:
            ClientNotFound: when there is no such identity.
        """
        async with self._changing:
            known = self._known.get(name)
            if known is None:
                raise ClientNotFound(f"There is no identity '{name}'.")
            one = replace(known, secret_hash=None, next_hash=None, revoked_at=self._clock())
            await insist(partial(self._records.revoke, one, self._entry("revocation", by, one)), self._patience_s)
            self._known[one.id] = one
            self._changed()
            return one

    async def token(self, name: str, secret: str, audience: Audience) -> tuple[str, float]:
        """An access token, and how many seconds it lives.

        Raises:
            Unauthenticated: when the credential is not right.
            Forbidden: when the identity has no business there.
        """
        known = self._checked(name, secret)
        if known.next_hash is not None and hmac.compare_digest(known.next_hash, digest(secret)):
            async with self._changing:
                known = replace(self._checked(name, secret), secret_hash=known.next_hash, next_hash=None)
                await self._keep(known)
        caller = self.caller(known)
        if audience not in AUDIENCES[caller.role]:
            raise Forbidden(f"A {caller.role} gets no token for the audience '{audience}'.")
        return self._signer().token(caller, audience, LIFE_S, self._clock()), LIFE_S

    def caller_by(self, name: str, secret: str) -> Caller:
        """Whose credential that is. Raises Unauthenticated when it is not right."""
        return self.caller(self._checked(name, secret))

    def session(self, name: str, secret: str) -> tuple[str, Caller, float]:
        """A token for a browser, of whom it is, and how many seconds it lives.

        Raises:
            Unauthenticated: when the credential is not right.
            Forbidden: when it is no person's.
        """
        return self._session(self._checked(name, secret))

    def session_of(self, code: str) -> tuple[str, Caller, float]:
        """The same, for a code that was given to somebody.

        Raises:
            Unauthenticated: when it is none, or was used, or is over, or who asked for it was revoked since.
        """
        given = self.codes.use(code)
        known = self._known.get(given.identity)
        if known is None or (known.revoked_at is not None and known.revoked_at >= given.made_at):
            raise Unauthenticated(f"The credential of '{given.identity}' was revoked.")
        return self._session(known)

    def link(self, caller: Caller, run: str, audience: Audience) -> str:
        """A token for an address, with which weights of that run can be downloaded for a minute."""
        of_link = Caller(caller.id, Role.LINK, frozenset(), frozenset({run}))
        return self._signer().token(of_link, audience, LINK_S, self._clock())

    def _session(self, identity: Identity) -> tuple[str, Caller, float]:
        caller = self.caller(identity)
        if caller.role not in (Role.OPERATOR, Role.VIEWER):
            raise Forbidden(f"The dashboard is for operators and viewers; '{identity.id}' is a {caller.role}.")
        return self._signer().token(caller, Audience.COORDINATOR, SESSION_S, self._clock()), caller, SESSION_S

    def trust(self) -> TrustJson:
        """What services check tokens with."""
        self.refresh()
        federation = self._living.now()
        return TrustJson(federation=federation.name, keys=jwks(federation.public), revoked=self.revoked)

    def own_token(self, audience: Audience) -> str:
        """The coordinator's own, for the data plane."""
        caller = Caller("coordinator", Role.COORDINATOR, frozenset(), frozenset({ANY}))
        return self._signer().token(caller, audience, LIFE_S, self._clock())

    def _signer(self) -> Signer:
        """The newest key that every service has had the time to hear of, or else the oldest, which all of them know."""
        self.refresh()
        federation, due = self._living.now(), self._clock() - TAKEN_OVER_S
        known = [kid for kid in federation.keys if self._noticed_at[kid] <= due]
        return federation.signer(known[-1] if known else next(iter(federation.keys)))

    def _checked(self, name: str, secret: str) -> Identity:
        known = self._known.get(name)
        given = digest(secret)
        right = [one for one in (known.secret_hash, known.next_hash) if one] if known is not None else []
        if known is None or not any(hmac.compare_digest(one, given) for one in right):
            raise Unauthenticated("There is no such credential, or it was revoked.")
        return known

    def _entry(self, action: str, by: str, one: Identity) -> Entry:
        """What the audit trail is to say."""
        said = {"role": one.role, "acts_as": list(one.acts_as), "runs": list(one.runs)}
        return Entry(self._clock(), by, action, one.id, said)

    async def _keep(self, one: Identity, *entries: Entry) -> None:
        await insist(partial(self._records.save, [one], *entries), self._patience_s)
        self._known[one.id] = one

    def _changed(self) -> None:
        hosts: defaultdict[str, list[Caller]] = defaultdict(list)
        for one in self._known.values():
            for participant in one.acts_as:
                hosts[participant] += [self.caller(one)] if one.secret_hash is not None else []
        self._hosts = hosts
        self._teach()

    def _teach(self) -> None:
        federation = self._living.now()
        self.verifier.learn(federation.name, federation.public, self.revoked)


def trust_of(identities: Identities | None) -> TrustJson | None:
    return None if identities is None else identities.trust()


def federation_of(settings: CoordinatorSettings, port: int) -> LivingFederation | None:
    """The federation that a coordinator belongs to; None: it takes everybody.

    Where none is named, and nobody but this machine reaches the coordinator, it is one of this user's own: all
    processes of the user here find its operator's credential by the coordinator's address.

    Raises:
        InvalidSetting: when others reach the coordinator, and no federation is named.
    """
    if settings.allow_anybody:
        return None
    if settings.federation is not None:
        return LivingFederation(Path(settings.federation))
    if not is_loopback(settings.host):
        raise InvalidSetting(
            f"federation: a coordinator that listens on {settings.host} needs one. Make it with `microsfl admin init "
            "FOLDER`, and start the coordinator with --federation FOLDER."
        )
    url = url_of(settings.scheme, settings.host, port)
    folder = home() / "federations" / kept_for(url).stem
    secret = new_secret()
    federation = Federation.read(folder) if (folder / FILE).exists() else Federation.new(folder.name)
    federation.with_first({OPERATOR: first(Role.OPERATOR, secret, time.time())}).write(folder)
    authorities = Outbound.of(settings).authorities()
    Credential(url, OPERATOR, secret, authorities).write(kept_for(url))
    return LivingFederation(folder)
