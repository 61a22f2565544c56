"""The audit trail in every database: entries follow on one another, and what happens to them afterwards shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from microsfl.errors import InvalidSetting, RunExists, StoreUnavailable
from microsfl.records import Entry, Identity, Records
from microsfl.records.glance import check_trail, entries
from microsfl.records.trail import BEGIN, Check, Head, Link
from tests.contract.test_records import DATABASES, RUN, url_of


@pytest.fixture(params=DATABASES)
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    opened = Records(url_of(request.param, request, tmp_path))
    yield opened
    opened.close()


@pytest.fixture(params=[one for one in DATABASES if one != "SQLite memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with ten entries, closed."""
    where = url_of(request.param, request, tmp_path)
    opened = Records(where)
    opened.trail.add(entry(number) for number in range(10))
    opened.close()
    return where


def entry(number: int = 0, at: float = 1_800_000_000.123457) -> Entry:
    return Entry(at + number / 3, "operator", "run created", f"run-{number}", {"b": [1, None, 0.1], "a": "é\u202e'\""})


def all_of(records: Records) -> list[Link]:
    return records.trail.after(0)[0]


def checked(links: list[Link], head: Head) -> Check:
    check = Check()
    check.take(links)
    check.end(head)
    return check


def test_it_begins_empty_and_whole(records: Records) -> None:
    links, head = records.trail.after(0)
    assert (links, head) == ([], Head(0, BEGIN))
    assert checked(links, head).broken is None


def test_entries_come_back_in_order_each_with_the_hash_of_the_one_before(records: Records) -> None:
    records.trail.add([entry(0), entry(1)])
    records.trail.add([entry(2)])
    links, head = records.trail.after(0)
    assert [one.seq for one in links] == [1, 2, 3]
    assert [one.previous for one in links] == [BEGIN, links[0].hash, links[1].hash]
    assert [one.hash for one in links] == [one.right_hash() for one in links]
    assert (links[2].at, links[2].object) == (entry(2).at, "run-2")
    assert links[0].details == '{"a":"\\u00e9\\u202e\'\\"","b":[1,null,0.1]}'
    assert head == Head(3, links[2].hash)
    assert records.trail.after(1, 1)[0] == [links[1]]
    assert checked(links, head).broken is None


def test_the_hash_is_what_the_documentation_says(records: Records) -> None:
    """So that somebody else can check it, with another program."""
    records.trail.add([Entry(1.5, "a", "b", "c", {"d": 1})])
    [link] = all_of(records)
    # printf '[1,1.5,"a","b","c","{\"d\":1}","000…0"]' | sha256sum
    assert link.hash == "506f6f0a0d0aac7eab00c5b66f931e52c5719b074e46178374b16dd5db65924c"


def test_threads_add_to_one_chain(records: Records) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: records.trail.add([entry(number), entry(number)]), range(40)))
    links, head = records.trail.after(0)
    assert (len(links), head.seq) == (80, 80)
    assert checked(links, head).broken is None


def test_an_entry_is_there_with_what_it_is_about_or_not_at_all(records: Records) -> None:
    records.add_run(RUN, [entry(0)])
    with pytest.raises(RunExists):
        records.add_run(replace(RUN, spec="{}"), [entry(1)])
    no_client: str = None  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        records.save_progress("demo", "{}", 9, metrics={(0, no_client): {"samples": 1}}, entries=[entry(2)])
    not_json = Entry(1.0, "a", "b", "c", {"d": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        records.save_progress("demo", "{}", 9, entries=[not_json])
    assert [one.object for one in all_of(records)] == ["run-0"]
    assert records.runs() == [RUN]
    records.save_progress("demo", "{}", 9, entries=[entry(3)])
    links, head = records.trail.after(0)
    assert [one.object for one in links] == ["run-0", "run-3"]
    assert checked(links, head).broken is None


def test_an_invitation_that_is_used_twice_is_in_the_trail_once(records: Records) -> None:
    one = Identity("carol", "client", ("carol",), ("*",), 1.0)
    assert not records.identities.enrol(one, "no such token", 1.0, entry(0))
    records.identities.save([one], entry(1))
    records.identities.revoke(one, entry(2))
    assert [link.object for link in all_of(records)] == ["run-1", "run-2"]


TAMPERED: dict[str, tuple[str, str]] = {
    "another actor": ("UPDATE trail SET actor = 'viewer' WHERE seq = 4", "entry 4 is not what it was"),
    "another time": ("UPDATE trail SET at = at + 1 WHERE seq = 4", "entry 4 is not what it was"),
    "other details": ("UPDATE trail SET details = '{}' WHERE seq = 10", "entry 10 is not what it was"),
    "another hash": (f"UPDATE trail SET hash = '{'1' * 64}' WHERE seq = 4", "entry 4 is not what it was"),
    "one gone": ("DELETE FROM trail WHERE seq = 4", "after entry 3 comes 5"),
    "the first gone": ("DELETE FROM trail WHERE seq = 1", "after entry 0 comes 2"),
    "the last gone": ("DELETE FROM trail WHERE seq > 8", "ends with entry 8, and should end with 10"),
    "all gone": ("DELETE FROM trail", "ends with entry 0, and should end with 10"),
    "one moved to the end": ("UPDATE trail SET seq = 11 WHERE seq = 4", "after entry 3 comes 5"),
    "another end": ("UPDATE trail_head SET seq = 8", "should end with 8"),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "found"), TAMPERED.values(), ids=TAMPERED.keys())
def test_whoever_changes_the_database_is_found_out(url: str, statement: str, found: str) -> None:
    whole = check_trail(url)
    assert whole is not None
    assert (whole.broken, whole.head.seq) == (None, 10)
    run(url, statement)
    check = check_trail(url)
    assert check is not None
    assert found in str(check.broken)


def test_whoever_writes_it_all_anew_is_found_out_by_a_hash_that_was_kept(url: str) -> None:
    before = check_trail(url)
    assert before is not None
    run(url, "DELETE FROM trail", f"UPDATE trail_head SET seq = 0, hash = '{BEGIN}'")
    again = Records(url)
    again.trail.add(entry(number, at=5.0) for number in range(12))
    again.close()
    after = check_trail(url, before.head.hash)
    assert after is not None
    assert after.broken is None
    assert not after.has_seen(before.head.hash)
    seen = check_trail(url, after.head.hash)
    assert seen is not None
    assert seen.has_seen(after.head.hash)


def test_long_trails_are_read_in_pages(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[int] = []
    take: Callable[..., None] = Check.take

    def counted(self: Check, links: list[Link], wanted: str | None = None) -> None:
        pages.append(len(links))
        take(self, links, wanted)

    monkeypatch.setattr(Check, "take", counted)
    monkeypatch.setattr("microsfl.records.trail.read.__defaults__", (4,))
    check = check_trail(url)
    assert check is not None
    assert (pages, check.broken) == ([4, 4, 2], None)
    assert len(entries(url, 3)) == 7


def test_a_trail_that_grows_meanwhile_is_whole(url: str) -> None:
    growing, done = Records(url), threading.Event()

    def grow() -> None:
        while not done.is_set():
            growing.trail.add([entry(0)])

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(grow)
        seen = [check_trail(url) for _ in range(30)]
        asked = Check()
        while links := (told := growing.trail.after(asked.head.seq, 7))[0]:
            asked.take(links)
            if asked.head.seq > 300:
                done.set()
        done.set()
        work.result()
    asked.end(told[1])
    assert [one.broken for one in seen if one] + [asked.broken] == [None] * 31
    assert asked.head.seq > 10
    growing.close()


def test_a_database_without_one_says_so(tmp_path: Path) -> None:
    assert check_trail(f"sqlite:///{tmp_path}/nothing.db") is None
    (tmp_path / "empty.db").touch()
    with pytest.raises(InvalidSetting, match="no audit trail"):
        check_trail(f"sqlite:///{tmp_path}/empty.db")
    assert (tmp_path / "empty.db").read_bytes() == b""


def run(url: str, *statements: str) -> None:
    parsed = make_url(url)
    engine = create_engine(parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
