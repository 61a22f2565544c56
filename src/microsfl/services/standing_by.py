"""A replica as a process: it listens, and says to the coordinator every other second that it is there.

The coordinator answers with what tokens are checked with. A replica asks nobody about a token, so it goes on with what
it knows when the coordinator is away.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import urllib3

from .. import __version__
from ..config import MB, ReplicaSettings
from ..errors import InputError, InvalidSetting, MicrosflError, Unauthenticated, Unreachable, from_wire
from ..process import event
from ..trust.keys import from_jwks
from ..trust.ticket import FORM, PATH, Ticket
from ..trust.tickets import ticket_for
from ..trust.tls import Inbound, Outbound
from ..trust.tokens import ANY, Audience, Caller, Verifier, named_in
from .callers import Bounds
from .connections import connections_of
from .http import listen, serve
from .pool import Pool
from .replica import Json, Replica, create_app

HEARTBEAT_S = 2.0
BEARER = "Bearer "


class Heartbeat:
    """Registers a replica with the coordinator and keeps saying that it is there, from a thread of its own.

    verifier: is taught what tokens are checked with.
    """

    def __init__(self, settings: ReplicaSettings, port: int, replica: Replica, verifier: Verifier | None) -> None:
        assert settings.coordinator is not None
        self.coordinator = settings.coordinator
        self.url = f"{settings.coordinator}/api/participants"
        self.replica = replica
        self.verifier = verifier
        self.process = secrets.token_hex(6)  # another one when this server comes back as another process
        self.me: Json = {
            "id": settings.participant_id(replica.role, port),
            "role": replica.role,
            "address": settings.advertised(port),
        }
        self.stopped, self.leaves = threading.Event(), threading.Event()
        outbound = Outbound.of(settings)
        self.http = Pool(outbound, urllib3.Timeout(5.0))
        self.ticket: Ticket | None = ticket_for(settings.coordinator, self._ask_for_token, settings.credential)
        if self.ticket is not None:
            outbound.vouch(self.ticket.credential.tls_ca)
        self.said: str | None = None
        self.may_choose = settings.id is None

    def start(self) -> None:
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def stop(self) -> None:
        self.stopped.set()
        self.leaves.set()

    def leave(self) -> None:
        """Say now, and from now on, that this server is about to end."""
        self.leaves.set()

    def _beat(self) -> None:
        while True:
            leaves = self.leaves.is_set()
            self._say(self._register(leaves))
            (self.stopped if leaves else self.leaves).wait(HEARTBEAT_S)
            if self.stopped.is_set():
                return

    def _register(self, leaves: bool = False) -> str:
        """Nothing, or why the coordinator does not know now that this server is there."""
        info = {"version": __version__, **self.replica.figures(), "process": self.process}
        if leaves:
            info["leaving"] = True
        try:
            token = self.ticket.header(Audience.COORDINATOR) if self.ticket is not None else {}
            if token and self.may_choose:
                self._take_name(named_in(token["authorization"].removeprefix(BEARER)))
            body = json.dumps({**self.me, "info": info}).encode()
            self._learn(self._post(self.url, body, {"content-type": "application/json", **token}).get("trust"))
        except Unauthenticated as error:
            if self.ticket is not None:
                self.ticket.forget(Audience.COORDINATOR)
            return str(error)
        except (urllib3.exceptions.HTTPError, MicrosflError, ValueError, KeyError, TypeError) as error:
            return str(error)
        return ""

    def _take_name(self, me: Caller) -> None:
        """The one that this server was invited as, where it may not have its default id and was told no other."""
        self.may_choose = False
        mine = me.acts_as & {me.id} or me.acts_as
        if len(mine) == 1 and not me.acts_as & {self.me["id"], ANY}:
            [self.me["id"]] = mine
            self.replica.stopwatch.server = self.me["id"]

    def _ask_for_token(self, form: bytes, _: bool) -> Json:
        """Once: the next beat is the next try."""
        try:
            return self._post(self.coordinator + PATH, form, {"content-type": FORM})
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(str(error)) from None

    def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Json:
        """The JSON object that comes back. Raises MicrosflError, HTTPError, ValueError."""
        answer = self.http.request("POST", url, body=body, headers=headers)
        said = json.loads(answer.data)
        if answer.status >= 300:
            raise from_wire(answer.status, said)
        return dict(said)

    def _learn(self, trust: Any) -> None:
        if self.verifier is None:
            return
        if trust is None:
            raise InputError("It takes everybody, so it has no keys for tokens: start this with --allow-anybody.")
        self.verifier.learn(str(trust["federation"]), from_jwks(trust["keys"]), dict(trust["revoked"]))

    def _say(self, problem: str) -> None:
        if problem != self.said:
            level = logging.WARNING if problem else logging.INFO
            told = {"reason": problem} if problem else {}
            event("coordinator not reached" if problem else "coordinator reached", level, url=self.url, **told)
        self.said = problem


def serve_replica(replica: Replica, settings: ReplicaSettings, audience: Audience) -> None:
    """Listen, register, and serve until the process is asked to end.

    Raises:
        InvalidSetting: when it could not check who asks, or a file of its certificates is wrong.
        PortInUse: when the address to listen on cannot be had.
    """
    if settings.coordinator is None and not settings.allow_anybody:
        raise InvalidSetting(
            "coordinator: its keys are what tokens are checked with. Name it with --coordinator, or answer everybody "
            "who reaches the port with --allow-anybody."
        )
    inbound = Inbound.of(settings)
    sock = listen(settings)
    port: int = sock.getsockname()[1]
    replica.stopwatch.server = settings.participant_id(replica.role, port)
    verifier = None if settings.allow_anybody else Verifier(audience)
    app = create_app(replica, int(settings.max_body_mb * MB), verifier, Bounds.of(settings))
    heartbeat = Heartbeat(settings, port, replica, verifier) if settings.coordinator else None
    if heartbeat is not None:
        heartbeat.start()
    stop = heartbeat.stop if heartbeat else None
    if heartbeat is not None:
        replica.leaving.tell = heartbeat.leave
    drain = partial(replica.leaving.drain, settings.drain_s) if settings.drain_s else None
    serve(app, sock, connections_of(settings), role=replica.role, on_stop=stop, inbound=inbound, drain=drain)
