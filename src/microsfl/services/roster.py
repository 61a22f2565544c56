"""Who takes part: clients and servers, and when each was last heard of.

Memory is what counts; the database follows every few seconds. What a killed coordinator had not written yet comes back
by itself: servers register every other second, and a client that is not known is told to register.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ClientNotFound, InvalidId
from ..records import Participant, Records

CLIENT = "client"
SPLIT_SERVER = "split-server"
FED_SERVER = "fed-server"

SERVER_SILENCE_S = 10.0  # servers register every 2 s
CLIENT_SILENCE_S = 120.0  # clients poll every 30 s, but not while they train


class Roster:
    """The participants, by id. Times are UTC unix seconds of `clock`."""

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records, self._clock = records, clock
        self._known = {one.id: one for one in records.participants()}
        self._unwritten: set[str] = set()
        self._began_at = clock()

    async def flush(self) -> None:
        """Write what changed since the last time, in one transaction."""
        changed, self._unwritten = self._unwritten, set()
        if not changed:
            return
        rows = [self._known[one] for one in sorted(changed)]
        try:
            await asyncio.to_thread(self._records.save_participants, rows)
        except BaseException:
            self._unwritten |= changed
            raise

    def all(self) -> list[Participant]:
        return [self._known[one] for one in sorted(self._known)]

    def register(self, id_: str, role: str, address: str | None, info: dict[str, Any]) -> Participant:
        """Add a participant, or hear of it again.

        Raises:
            InvalidId: when the id belongs to a participant of another role.
        """
        now = self._clock()
        known = self._known.get(id_)
        if known is not None and known.role != role:
            raise InvalidId(f"participant id '{id_}' is that of a {known.role}; register the {role} under another.")
        first_seen = known.first_seen if known else now
        self._known[id_] = Participant(id_, role, address, info, first_seen, now)
        self._unwritten.add(id_)
        return self._known[id_]

    def heard_of(self, clients: Sequence[str]) -> None:
        """Note that these clients are alive.

        Raises:
            ClientNotFound: naming those that never registered; nothing is noted then.
        """
        known = {one: self._known[one] for one in clients if one in self._known and self._known[one].role == CLIENT}
        unknown = [one for one in clients if one not in known]
        if unknown:
            raise ClientNotFound(f"Not registered as a client: {', '.join(unknown[:10])}.")
        now = self._clock()
        self._known.update({id_: replace(one, last_seen=now) for id_, one in known.items()})
        self._unwritten.update(known)

    def clients(self) -> tuple[str, ...]:
        """The clients that were heard of lately, by id."""
        since = self._clock() - CLIENT_SILENCE_S
        return tuple(one.id for one in self.all() if one.role == CLIENT and one.last_seen >= since)

    def servers(self, role: str) -> list[str]:
        """URLs of the servers of a role, by id: those heard of lately, or all known ones when none was.

        Right after a restart everybody counts as heard of, since nobody had the chance to call.
        """
        known = [one for one in self.all() if one.role == role and one.address]
        since = self._clock() - SERVER_SILENCE_S
        recent = [one for one in known if max(one.last_seen, self._began_at) >= since]
        return [one.address for one in recent or known if one.address]

    def fed_server(self) -> str | None:
        """URL of the fed server that was heard of last."""
        known = [one for one in self._known.values() if one.role == FED_SERVER]
        return max(known, key=lambda one: one.last_seen).address if known else None
