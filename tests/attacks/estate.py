"""A federation with all three services over HTTP, for attacks: who is in it, its tokens, and all that it keeps."""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from microsfl.config import FedServerSettings, SplitServerSettings
from microsfl.records import Records
from microsfl.services import coordinator, fed_server, replica, split_server
from microsfl.services.data_plane import DataPlane
from microsfl.services.identities import Identities
from microsfl.store.objects import open_store
from microsfl.trust.keys import Federation, LivingFederation, first
from microsfl.trust.scopes import Role
from microsfl.trust.secret import new_secret
from microsfl.trust.tokens import Audience, Signer, Verifier
from microsfl.wire.messages import Backward, Forward, Message, Predict, Step, Update
from microsfl.zoo.parts import build_parts, client_side
from tests.service.control_plane import served
from tests.world import ALLOWED, spec_of

NOW = 1_800_000_000.0
RUN, OTHER = "toy", "other"
LIMIT_BYTES = 200_000
# What changes without anybody's doing: when somebody was last heard of, and the list of who was refused.
NOT_COMPARED = {"participants", "trail", "trail_head"}

# name -> (role, the runs that it is invited to)
MEMBERS: dict[str, tuple[Role, tuple[str, ...]]] = {
    "operator": (Role.OPERATOR, ("*",)),
    "viewer": (Role.VIEWER, (RUN,)),
    "stranger": (Role.VIEWER, (OTHER,)),
    "helper": (Role.OPERATOR, (OTHER,)),
    "alice": (Role.CLIENT, (RUN,)),
    "bob": (Role.CLIENT, (RUN,)),
    "mallory": (Role.CLIENT, (OTHER,)),
    "eve": (Role.CLIENT, (RUN,)),  # who is revoked
    "split-0": (Role.SPLIT_SERVER, ("*",)),
    "fed": (Role.FED_SERVER, ("*",)),
}
AREAS = {"coordinator": Audience.COORDINATOR, "split": Audience.BODY, "fed": Audience.CLIENT_SIDE}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def code(self) -> str:
        """Of the error that it is."""
        assert set(self.json) == {"error"}, self.data
        assert set(self.json["error"]) == {"code", "message"}
        return str(self.json["error"]["code"])

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


@dataclass
class Estate:
    """urls and verifiers by service: coordinator, split, fed."""

    folder: Path
    federation: Federation
    secrets: dict[str, str]
    clock: list[float] = field(default_factory=lambda: [NOW])
    urls: dict[str, str] = field(default_factory=dict)
    verifiers: dict[str, Verifier] = field(default_factory=dict)
    identities: Identities = field(init=False)

    @property
    def signer(self) -> Signer:
        """With the federation's newest key."""
        return self.federation.signer(list(self.federation.keys)[-1])

    def now(self) -> float:
        return self.clock[0]

    def token(self, member: str, service: str, **changes: Any) -> str:
        """A right one; changes: other arguments of `Signer.token`."""
        role, runs = MEMBERS[member]
        caller = self.identities.caller(next(one for one in self.identities.all() if one.id == member))
        assert (caller.role, caller.runs) == (role, frozenset(runs))
        return self.signer.token(caller, AREAS[service], **{"now": self.now(), **changes})

    def send(
        self,
        service: str,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, as it is: no client tidies the path. A body that is no bytes is packed or written as JSON."""
        if isinstance(body, Message):
            body = body.pack()
        sent = dict(headers or {})
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        if token is not None:
            sent.setdefault("authorization", f"Bearer {token}")
        connection = http.client.HTTPConnection(urlsplit(self.urls[service]).netloc, timeout=30)
        try:
            connection.request(method, path, body, sent)
            got = connection.getresponse()
            return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
        finally:
            connection.close()

    def ask(self, member: str, service: str, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        return self.send(service, method, path, body, self.token(member, service), **more)

    def first_bytes(self, member: str, path: str, until: bytes) -> bytes:
        """What a stream of the coordinator begins with, to the end of the line that begins so and the one after it."""
        connection = http.client.HTTPConnection(urlsplit(self.urls["coordinator"]).netloc, timeout=30)
        try:
            token = self.token(member, "coordinator")
            connection.request("GET", path, headers={"authorization": f"Bearer {token}"})
            lines = iter(connection.getresponse().readline, b"")
            heard = b""
            for line in lines:
                heard += line
                if line.startswith(until):
                    return heard + next(lines)
            return heard
        finally:
            connection.close()

    def kept(self) -> dict[str, Any]:
        """All files of both stores and around them, the database, and what the coordinator says of participants."""
        files = sorted(one for one in self.folder.rglob("*") if one.is_file() and not one.name.startswith("records.db"))
        told = self.ask("operator", "coordinator", "GET", "/api/participants").json["participants"]
        found = {str(one.relative_to(self.folder)): one.read_bytes() for one in files}
        return {"files": found, "tables": tables(self.folder / "records.db"), "participants": told}


def tables(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that is compared."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        named = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        names = [name for (name,) in named if name not in NOT_COMPARED]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}


@contextlib.contextmanager
def estate(folder: Path) -> Iterator[Estate]:
    """Two clients train in round 0 of the run `toy`, and alice has a unit in it; eve has been revoked."""
    secrets = {name: new_secret() for name in MEMBERS}
    members = {
        name: first(role, secrets[name], NOW - 100, _acts_as(name), runs) for name, (role, runs) in MEMBERS.items()
    }
    Federation.new("clinics").with_first(members).write(folder / "federation")
    living = LivingFederation(folder / "federation")
    it = Estate(folder, living.now(), secrets)
    records = Records(f"sqlite:///{folder}/records.db")
    it.identities = Identities(records, living, it.now)
    with contextlib.ExitStack() as stack:
        stack.callback(records.close)
        for name, made in replicas(it).items():
            verifier = it.verifiers[name] = Verifier(AREAS[name], it.now)
            it.urls[name] = stack.enter_context(served(replica.create_app(made, LIMIT_BYTES, verifier)))
        app = coordinator.create_app(records, it.now, DataPlane(budget_s=5), 0, identities=it.identities)
        it.urls["coordinator"] = stack.enter_context(served(app, app.state.director.stop))
        teach(it)
        _begin(it)
        yield it


def replicas(it: Estate) -> dict[str, replica.Replica]:
    split = SplitServerSettings(store_url=f"file://{it.folder}/body", allow_models=ALLOWED)
    fed = FedServerSettings(store_url=f"file://{it.folder}/client-side", allow_models=ALLOWED)
    return {
        "split": split_server.create_replica(split, open_store(split.store_url)),
        "fed": fed_server.create_replica(fed, open_store(fed.store_url)),
    }


def teach(it: Estate) -> None:
    """As a heartbeat does."""
    for verifier in it.verifiers.values():
        verifier.learn(it.federation.name, it.federation.public, it.identities.revoked)


def _acts_as(name: str) -> tuple[str, ...]:
    return ("*",) if MEMBERS[name][0] is Role.OPERATOR else (name,)


def _begin(it: Estate) -> None:
    for name in ("split", "fed"):
        member, role = ("split-0", "split-server") if name == "split" else ("fed", "fed-server")
        body = {"id": member, "role": role, "address": it.urls[name]}
        assert it.ask(member, "coordinator", "POST", "/api/participants", body).status == 200
    for client in ("alice", "bob"):
        body = {"id": client, "role": "client"}
        assert it.ask(client, "coordinator", "POST", "/api/participants", body).status == 200
    spec = spec_of(run={"name": RUN, "rounds": 2}, data={"clients": 2, "batch_size": 8}).model_dump(mode="json")
    assert it.ask("operator", "coordinator", "POST", "/api/runs", spec).status == 201
    assert it.ask("operator", "coordinator", "POST", f"/api/runs/{RUN}/start").json["state"] == "running"
    assert it.ask("alice", "split", "POST", "/v1/forward", forward()).status == 200
    assert it.ask("alice", "split", "POST", "/v1/backward", backward()).status == 200
    assert it.ask("alice", "fed", "POST", "/v1/updates", update()).status == 200
    eve = it.ask("operator", "coordinator", "POST", "/api/identities/eve/revoke")
    assert eve.json["revoked_at"] == NOW
    teach(it)


def forward(**changes: Any) -> Forward:
    values = {"run": RUN, "round": 0, "client": "alice", "unit": 0, "needs_grad": ("0",)}
    return Forward(**{**values, "activations": {"0": torch.ones(8, 5)}, **changes})


def backward(**changes: Any) -> Backward:
    values = {"run": RUN, "round": 0, "client": "alice", "unit": 0, "version": 0, "needs_grad": ("0",)}
    return Backward(**{**values, "gradients": {"0": torch.ones(8, 4)}, **changes})


def step(**changes: Any) -> Step:
    tensors = {"activations": {"0": torch.ones(8, 5)}, "labels": {"0": torch.zeros(8, dtype=torch.int64)}}
    return Step(**{"run": RUN, "round": 0, "client": "alice", "unit": 9, **tensors, **changes})


def predict(**changes: Any) -> Predict:
    return Predict(**{"run": RUN, "activations": {"0": torch.ones(8, 5)}, **changes})


def update(**changes: Any) -> Update:
    parts = client_side(spec_of(), build_parts(spec_of(), ALLOWED))
    weights = {f"{part}.{name}": one for part, module in parts.items() for name, one in module.state_dict().items()}
    return Update(**{"run": RUN, "round": 0, "client": "alice", "samples": 8, "weights": weights, **changes})
