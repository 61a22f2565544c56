"""The coordinator as an operator sees it who decides who takes part, and as somebody sees it who was invited."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..client.entitled import Ways, asking
from ..client.http import Http, Way, json_object
from ..trust.credential import Credential
from ..trust.ticket import Ticket
from ..trust.tokens import Audience
from .folder import free

PATIENCE_S = 10.0
JSON = "application/json"

Json = dict[str, Any]


class People:
    """Every verb is asked once: whoever waits at a terminal can ask again.

    Raises, from every verb:
        Unauthenticated, Forbidden: when the credential is not that of an operator.
        Unreachable: when no coordinator answers.
    """

    def __init__(self, coordinator: str, credential: str | None = None) -> None:
        self.url = coordinator
        self._way = Ways.of(Http(0.0, PATIENCE_S), coordinator, credential).coordinator

    def invite(
        self,
        name: str,
        role: str,
        acts_as: Sequence[str] = (),
        runs: Sequence[str] = (),
        expires_s: float | None = None,
    ) -> Json:
        """`token`, with which `name` can enrol once, and `expires_at`.

        acts_as: the clients that one process hosts under this identity, or the split servers that share it, when that
        is not `name` alone. runs: those that a client may take part in; none named: all.
        """
        values: Json = {"id": name, "role": role}
        if acts_as:
            values["acts_as"] = list(acts_as)
        if runs:
            values["runs"] = list(runs)
        if expires_s is not None:
            values["expires_s"] = expires_s
        return _post(self._way, self.url, "/api/invitations", values)

    def identities(self) -> list[Json]:
        return list(json_object(self._way.request("GET", lambda: [self.url], "/api/identities"))["identities"])

    def revoke(self, name: str) -> Json:
        """The identity, whose credential and tokens are not right any more."""
        return _post(self._way, self.url, f"/api/identities/{name}/revoke")


def enrol(coordinator: str, token: str, path: Path) -> Credential:
    """Use up an invitation; the credential, which is then in that file, with the CA that this process trusts.

    Raises:
        InvalidSetting, StoreNotWritable: when it could not be kept there; then the invitation is as it was.
        Unauthenticated: when the invitation is over, was used, or is none.
        Unreachable: when no coordinator answers.
    """
    free(path)
    http = Http(0.0, PATIENCE_S)
    given = _post(http, coordinator, "/api/enrolments", {"token": token})
    authorities = http.connections.outbound.authorities()
    credential = Credential(coordinator, str(given["id"]), str(given["secret"]), authorities)
    credential.write(path)
    return credential


def rotate(path: Path) -> Credential:
    """Give the credential in the file a new secret.

    The old one stays right until the new one is first used. So whatever happens on the way, what is in the file is
    right: the answer may be lost, and this process may end at any moment.

    Raises:
        InvalidSetting: when there is no credential.
        Unauthenticated: when it is not right.
        Unreachable: when no coordinator answers; after that, either secret may be in the file, and is right.
    """
    old, http = Credential.read(path), Http(0.0, PATIENCE_S)
    http.connections.outbound.vouch(old.tls_ca)
    secret = _post(http, old.coordinator, "/api/rotations", {"id": old.id, "secret": old.secret})
    new = replace(old, secret=str(secret["secret"]))
    new.write(path)
    ask = asking(Http(connections=http.connections), new.coordinator)
    Ticket(new, ask).header(Audience.COORDINATOR)  # the first use, which ends the old one
    return new


def _post(way: Way, url: str, path: str, values: Json | None = None) -> Json:
    body = None if values is None else json.dumps(values).encode()
    return json_object(way.request("POST", lambda: [url], path, body, JSON))
