"""A server that hangs does not hold up a call that others can answer."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from microsfl.services import hedge
from microsfl.services.hedge import Failed, first_answer

Ask = Callable[[str], Awaitable[str]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hedge, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(hedge, "GONE_S", 0.002)


def asked(
    answers: dict[str, str | Exception | None], named: tuple[str, ...] = ("a", "b", "c")
) -> tuple[str, list[str]]:
    """What comes of asking a, then b, then c; None: it hangs. And whom that was asked, in order."""
    calls: list[str] = []

    async def ask(server: str) -> str:
        calls.append(server)
        answer = answers[server]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async def run() -> str:
        return await first_answer(ask, "a", ["b", "c"], 0.005, lambda: named)

    return asyncio.run(run()), calls


def test_who_answers_in_time_is_the_only_one_that_is_asked() -> None:
    assert asked({"a": "done"}) == ("done", ["a"])


def test_beside_one_that_hangs_the_next_is_asked() -> None:
    assert asked({"a": None, "b": "done"}) == ("done", ["a", "b"])
    assert asked({"a": None, "b": None, "c": "done"}) == ("done", ["a", "b", "c"])


def test_one_that_failed_is_not_waited_for_and_another_that_hangs_is_no_reason_to_fail() -> None:
    assert asked({"a": None, "b": Failed("away"), "c": "done"})[0] == "done"


def test_a_failure_is_raised_at_once_where_nobody_hangs() -> None:
    with pytest.raises(Failed, match="away"):
        asked({"a": Failed("away")})


def test_what_a_server_has_against_the_call_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="wrong"):
        asked({"a": None, "b": ValueError("wrong")})


def test_who_is_not_named_any_more_is_waited_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    async def ask(server: str) -> str:
        calls.append(server)
        if server == "a":
            await asyncio.Event().wait()
        return "done"

    async def run(named: list[str]) -> str:
        return await asyncio.wait_for(first_answer(ask, "a", ["b"], 1e9, lambda: named), 5.0)

    assert asyncio.run(run(["b"])) == "done"
    monkeypatch.setattr(hedge, "GONE_S", 1e9)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(run(["b"]), 0.05))


def test_nobody_complains_of_a_failure_that_comes_too_late() -> None:
    complaints: list[str] = []

    async def run() -> str:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        late = asyncio.Event()

        async def ask(server: str) -> str:
            if server == "a":
                await late.wait()
                raise Failed("too late")
            return "done"

        found = await first_answer(ask, "a", ["b"], 0.0, lambda: ["a", "b"])
        late.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return found

    assert asyncio.run(run()) == "done"
    gc.collect()
    assert complaints == []
