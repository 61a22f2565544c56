"""`microsfl audit verify` and `microsfl audit show`: the trail of a coordinator that answers, or in a database."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

import click

from ..client.coordinator import Coordinator
from ..client.entitled import Ways
from ..client.http import Http
from ..errors import InvalidSetting
from ..records.glance import check_trail, entries
from ..records.trail import BEGIN, Check, Head, Link

RETRY_S, PATIENCE_S = 10.0, 5.0
WIDEST = 100  # characters of an entry's details in the table

Json = dict[str, Any]


@dataclass(frozen=True)
class Where:
    """Which trail: of the coordinator at a URL, or in the database at one. credential: the file of one."""

    coordinator: str
    records_url: str | None
    credential: str | None = None


class Asked(Coordinator):
    """The coordinator, asked for its trail."""

    def __init__(self, where: Where) -> None:
        ways = Ways.of(Http(RETRY_S, PATIENCE_S), where.coordinator, where.credential)
        super().__init__(ways.coordinator, where.coordinator)
        self.head = Head(0, BEGIN)

    def pages(self, after: int = 0) -> Iterator[list[Link]]:
        """The entries after that number; `head` is where the trail ended when it was last asked."""
        while True:
            said = self._ask("GET", f"/api/audit?{urlencode({'after': after})}")
            self.head = Head(**said["head"])
            if not said["entries"]:
                return
            yield [_link(one) for one in said["entries"]]
            after = said["entries"][-1]["seq"]


def verify(where: Where, head: str | None, *, as_json: bool) -> int:
    """Check the chain, say where it ends, and return the exit code: 1 when it is broken, or does not have `head`."""
    check = _check(where, head)
    problem = check.broken
    if problem is None and head is not None and head != BEGIN and not check.has_seen(head):
        problem = f"no entry has the hash {head}: the trail was written anew, or cut off and gone on with"
    said = {"whole": problem is None, "problem": problem, **asdict(check.head)}
    if as_json:
        click.echo(json.dumps(said, indent=2))
    elif problem is None:
        counted = "1 entry" if check.head.seq == 1 else f"{check.head.seq} entries"
        click.echo(f"whole: {counted}; the last one has the hash\n{check.head.hash}")
    else:
        click.echo(f"broken: {problem}")
    return 0 if problem is None else 1


def show(where: Where, after: int, *, as_json: bool) -> None:
    """Print the entries."""
    pages = [entries(where.records_url, after)] if where.records_url else Asked(where).pages(after)
    for page in pages:
        for link in page:
            click.echo(json.dumps(_told(link)) if as_json else _line(link))


def _check(where: Where, head: str | None) -> Check:
    if where.records_url is not None:
        found = check_trail(where.records_url, head)
        if found is None:
            raise InvalidSetting(f"There is no database {where.records_url}.")
        return found
    check, asked = Check(), Asked(where)
    for page in asked.pages():
        check.take(page, head)
        if check.broken is not None:
            return check
    check.end(asked.head)
    return check


def _link(said: Json) -> Link:
    """As it was hashed."""
    return Link(**{**said, "details": json.dumps(said["details"], sort_keys=True, separators=(",", ":"))})


def _told(link: Link) -> Json:
    return {**vars(link), "details": json.loads(link.details)}


def _line(link: Link) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(link.at))
    details = link.details if len(link.details) <= WIDEST else link.details[: WIDEST - 1] + "…"
    return f"{link.seq:>6}  {at}  {link.actor:<16}  {link.action:<20}  {link.object:<16}  {details}"
