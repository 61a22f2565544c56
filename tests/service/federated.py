"""A coordinator that asks everybody who they are, and servers that check tokens, over real HTTP."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from microsfl.config import FedServerSettings, ReplicaSettings, SplitServerSettings
from microsfl.records import Records
from microsfl.services import fed_server, split_server
from microsfl.services.coordinator import create_app
from microsfl.services.data_plane import DataPlane
from microsfl.services.identities import Identities
from microsfl.services.replica import Replica
from microsfl.services.replica import create_app as replica_app
from microsfl.services.standing_by import Heartbeat
from microsfl.store.objects import open_store
from microsfl.trust.credential import Credential
from microsfl.trust.keys import Federation, LivingFederation, first
from microsfl.trust.scopes import Role
from microsfl.trust.secret import new_secret
from microsfl.trust.tokens import Audience, Verifier
from tests.service.control_plane import Api, Json, served

ROLES = tuple(role for role in Role if role not in (Role.COORDINATOR, Role.LINK))
MEMBERS = {role.value: role for role in ROLES}  # one of each, named after its role


class Admitted(Api):
    """The API with a header on each request."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        super().__init__(url)
        self.headers = headers

    def send(self, method: str, path: str, body: Any = None, raw: bytes | None = None) -> tuple[int, Json]:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        kind = {"content-type": "application/json"} if data is not None else {}
        response = self.pool.request(method, self.url + "/api" + path, body=data, headers={**kind, **self.headers})
        return response.status, response.json() if response.data else {}


@dataclass
class Site:
    """The federation, its folder, and a credential of each role."""

    url: str
    folder: Path
    secrets: dict[str, str]
    records: Records

    def credential(self, name: str) -> Credential:
        return Credential(self.url, name, self.secrets[name])

    def token(self, name: str, audience: Audience = Audience.COORDINATOR, secret: str | None = None) -> str:
        status, answer = self.ask_token(name, audience, secret)
        assert status == 200, answer
        return str(answer["access_token"])

    def ask_token(
        self, name: str, audience: Audience = Audience.COORDINATOR, secret: str | None = None
    ) -> tuple[int, Json]:
        form = {
            "grant_type": "client_credentials", "client_id": name, "client_secret": secret or self.secrets[name],
            "audience": audience,
        }  # fmt: skip
        answer = urllib3.request(
            "POST",
            f"{self.url}/api/tokens",
            body=urlencode(form),
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        return answer.status, answer.json()

    def as_(self, name: str) -> Admitted:
        """The API for whom that is."""
        return Admitted(self.url, bearer(self.token(name)))

    @property
    def anybody(self) -> Admitted:
        return Admitted(self.url, {})

    def invite(self, name: str, role: str = "client", **more: Any) -> str:
        return str(self.as_("operator").post("/invitations", {"id": name, "role": role, **more})["token"])

    def enrol(self, name: str, role: str = "client", **more: Any) -> None:
        enrolled = self.anybody.post("/enrolments", {"token": self.invite(name, role, **more)})
        self.secrets[name] = enrolled["secret"]

    def session(self, name: str) -> Admitted:
        """The API for a browser in which somebody has logged in."""
        return Admitted(self.url, {"cookie": self.cookie({"id": name, "secret": self.secrets[name]})})

    def cookie(self, log_in: Json) -> str:
        answer = urllib3.request("POST", f"{self.url}/api/session", json=log_in)
        assert answer.status == 200, answer.data
        return answer.headers["set-cookie"].split(";")[0]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def status_of(url: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None) -> int:
    """The status alone: the answer may go on for ever."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
    try:
        target = f"{place.path}?{place.query}" if place.query else place.path
        connection.request(method, target, body, headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


@contextmanager
def federated(folder: Path, clock: Callable[[], float] = time.time) -> Iterator[Site]:
    """Its records stay in the folder, as do its keys: it can be left and entered again."""
    place = folder / "federation"
    secrets = {name: new_secret() for name in MEMBERS}
    members = {name: first(role, secrets[name], clock(), [name]) for name, role in MEMBERS.items()}
    members["operator"] = first(Role.OPERATOR, secrets["operator"], clock())
    Federation.new("tests", clock()).with_first(members).write(place)
    records = Records(f"sqlite:///{folder}/records.db")
    app = create_app(
        records, clock, DataPlane(budget_s=5), 0, identities=Identities(records, LivingFederation(place), clock)
    )
    with served(app, app.state.director.stop) as url:
        yield Site(url, place, secrets, records)
    records.close()


@dataclass
class Server:
    """A split server or fed server that checks tokens. It says that it is there when it is told to."""

    url: str
    beat: Heartbeat
    replica: Replica

    def learn(self) -> None:
        """One heartbeat."""
        assert self.beat._register() == ""


@contextmanager
def servers(site: Site, folder: Path) -> Iterator[tuple[Server, Server]]:
    """A split server and a fed server, each with a store of its own."""
    with ExitStack() as stack:
        split = SplitServerSettings(**_settings(site, folder, "split-server"))
        fed = FedServerSettings(**_settings(site, folder, "fed-server"))
        split_replica = split_server.create_replica(split, open_store("memory://"))
        fed_replica = fed_server.create_replica(fed, open_store("memory://"))
        yield (
            stack.enter_context(_server(split_replica, split, Audience.BODY)),
            stack.enter_context(_server(fed_replica, fed, Audience.CLIENT_SIDE)),
        )


def _settings(site: Site, folder: Path, name: str) -> dict[str, Any]:
    site.credential(name).write(folder / f"{name}.json")
    return {"coordinator": site.url, "credential": str(folder / f"{name}.json"), "store_url": "memory://"}


@contextmanager
def _server(replica: Replica, settings: ReplicaSettings, audience: Audience) -> Iterator[Server]:
    verifier = Verifier(audience)
    with served(replica_app(replica, 10**6, verifier)) as url:
        beat = Heartbeat(settings, int(url.rpartition(":")[2]), replica, verifier)
        server = Server(url, beat, replica)
        server.learn()
        yield server
