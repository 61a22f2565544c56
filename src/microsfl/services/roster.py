"""Who takes part: clients and servers, and when each was last heard of.

Memory is what counts; the database follows every few seconds. What a killed coordinator had not written yet comes back
by itself: servers register every other second, and a client that is not known is told to register.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ClientNotFound, InvalidId, OperationError
from ..process import event
from ..records import Participant, Records

# In what a participant tells about itself: a token that each process makes up, and whether it is about to end.
PROCESS, LEAVING = "process", "leaving"
CLIENT = "client"
SPLIT_SERVER = "split-server"
FED_SERVER = "fed-server"

# How long a participant counts as alive after it was heard of. Servers register every 2 s, also while they compute;
# a client process says every few seconds that it is there, also while it trains.
SERVER_LEASE_S = 6.0
CLIENT_LEASE_S = 15.0
FLUSH_EVERY_S = 3.0
FLUSH_ROWS = 100


class Roster:
    """The participants, by id. Times are UTC unix seconds of `clock`.

    told_split, told_fed: where clients reach the servers, if not at the addresses that these register with.
    """

    told_split: Sequence[str] = ()
    told_fed: str | None = None

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records, self._clock = records, clock
        self._known = {one.id: one for one in records.participants()}
        # Every answer names the servers, and clients may be many: who has a role is looked up, not searched for.
        self._ids: defaultdict[str, set[str]] = defaultdict(set)
        for one in self._known.values():
            self._ids[one.role].add(one.id)
        self._unwritten: set[str] = set()
        self.began_at = clock()

    async def keep(self) -> None:
        """Write every few seconds, for ever."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self.try_to_flush()
            await self.forget_gone()

    async def try_to_flush(self) -> None:
        """Write what changed; what could not be written is kept for the next time."""
        try:
            await self.flush()
        except OperationError as error:
            event("participants not written", logging.WARNING, error=str(error))

    async def forget_gone(self) -> None:
        """Forget the servers that said that they leave, and have left: where they come and go they are ever more."""
        gone = [one.id for one in self._known.values() if one.info.get(LEAVING) and not self.alive(one.id)]
        if not gone:
            return
        try:
            await asyncio.to_thread(self._records.remove_participants, gone)
        except OperationError as error:
            event("participants not removed", logging.WARNING, error=str(error))
            return
        for id_ in gone:
            if not self.alive(id_):  # it may be back
                self._ids[self._known.pop(id_).role].discard(id_)
                self._unwritten.discard(id_)
            else:
                self._unwritten.add(id_)

    async def flush(self) -> None:
        """Write what changed since the last time, in transactions so small that they hold up no answer."""
        changed, self._unwritten = sorted(self._unwritten), set()
        while changed:
            rows = [self._known[one] for one in changed[:FLUSH_ROWS]]
            try:
                await asyncio.to_thread(self._records.save_participants, rows)
            except BaseException:
                self._unwritten.update(changed)
                raise
            changed = changed[FLUSH_ROWS:]

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
        first_seen, restarts = (known.first_seen, known.restarts + _is_another(known, info)) if known else (now, 0)
        self._known[id_] = Participant(id_, role, address, info, first_seen, now, restarts)
        self._ids[role].add(id_)
        self._unwritten.add(id_)
        return self._known[id_]

    def heard_of(self, clients: Sequence[str]) -> None:
        """Note that these clients are alive.

        Raises:
            ClientNotFound: naming those that never registered; nothing is noted then.
        """
        known = self._ids[CLIENT]
        unknown = [one for one in clients if one not in known]
        if unknown:
            raise ClientNotFound(f"Not registered as a client: {', '.join(unknown[:10])}.")
        now = self._clock()
        for client in clients:
            self._known[client] = replace(self._known[client], last_seen=now)
        self._unwritten.update(clients)

    def silent_s(self, id_: str) -> float:
        """Seconds since a participant was last heard of.

        At most the age of this process: while the coordinator was down, nobody had the chance to call.
        """
        known = self._known.get(id_)
        return self._clock() - max(known.last_seen if known else 0.0, self.began_at)

    def alive(self, id_: str) -> bool:
        """Whether a participant's lease still holds."""
        known = self._known.get(id_)
        return known is not None and self.silent_s(id_) <= lease_s(known.role)

    def clients(self) -> tuple[str, ...]:
        """The clients that were heard of lately, by id. What an earlier coordinator heard is not enough to begin."""
        since = self._clock() - CLIENT_LEASE_S
        return tuple(one.id for one in self._of(CLIENT) if one.last_seen >= since)

    def has_clients(self, count: int) -> bool:
        """Whether so many clients ever registered."""
        return len(self._ids[CLIENT]) >= count

    def servers(self, role: str) -> list[str]:
        """URLs of the servers of a role, by id: those that are alive and stay, or all that are alive, or all known."""
        known = [one for one in self._of(role) if one.address]
        alive = [one for one in known if self.alive(one.id)]
        return [one.address for one in staying(alive) or alive or known if one.address]

    def count(self, role: str) -> int:
        """Servers of a role that are alive and stay."""
        return len(staying([one for one in self._of(role) if self.alive(one.id)]))

    def fed_server(self) -> str | None:
        """URL of the fed server that was heard of last."""
        known = self._of(FED_SERVER)
        return max(staying(known) or known, key=lambda one: one.last_seen).address if known else None

    def told(self) -> dict[str, Any]:
        """Which servers a client is to ask."""
        return {
            "split_servers": list(self.told_split) or self.servers(SPLIT_SERVER),
            "fed_server": self.told_fed or self.fed_server(),
        }

    def _of(self, role: str) -> list[Participant]:
        """Everybody of a role, by id."""
        return [self._known[one] for one in sorted(self._ids[role])]


def staying(servers: Sequence[Participant]) -> list[Participant]:
    """Those that are not about to end."""
    return [one for one in servers if not one.info.get(LEAVING)]


def _is_another(known: Participant, info: dict[str, Any]) -> bool:
    """Whether a participant came back as another process, as far as both say which they are."""
    before, now = known.info.get(PROCESS), info.get(PROCESS)
    return None not in (before, now) and before != now


def lease_s(role: str) -> float:
    return CLIENT_LEASE_S if role == CLIENT else SERVER_LEASE_S
