"""What a client process asks for while its clients are at work."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from microsfl.client.agent import BUSY_POLL_S, POLL_S, Agent
from microsfl.client.trainer import Task
from microsfl.config import ClientSettings

TRAIN = Task("train", "demo", 0, "a", 0, 0, 0)
EVALUATE = Task("evaluate", "demo", 0, "a", 0, 1, 1)


class Script:
    """Takes the coordinator's and the trainer's place: notes what it is asked, and calls back meanwhile."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agent, self.asked, self.taken = agent, list[Any](), list[bool]()
        for name in ("poll", "report"):
            monkeypatch.setattr(agent.coordinator, name, getattr(self, name))
        monkeypatch.setattr(agent, "_trainer", lambda _: SimpleNamespace(train=self.train))

    def train(self, _: Task) -> dict[str, Any]:
        self.taken.append(self.agent._take(EVALUATE))
        self.agent._poll()
        return {"samples": 1}

    def report(self, _: str, __: dict[str, Any]) -> bool:
        self.agent._poll()
        self.taken.append(self.agent._take(EVALUATE))
        return True

    def poll(self, clients: Sequence[str], wait_s: float, in_hand: Sequence[dict[str, Any]]) -> list[Any]:
        self.asked.append((tuple(clients), wait_s, [task["kind"] for task in in_hand]))
        return []


def test_the_next_task_is_taken_once_the_one_before_is_done_but_not_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(ClientSettings(ids=("a", "b"), coordinator="http://127.0.0.1:1"))
    script = Script(agent, monkeypatch)
    agent._poll()
    assert agent._take(TRAIN)
    agent.do(agent.tasks.get_nowait())
    assert script.taken == [False, True]
    assert agent.in_hand == {"a": EVALUATE}
    everybody = ("a", "b")
    assert script.asked == [
        (everybody, POLL_S, []),
        (everybody, BUSY_POLL_S, ["train"]),
        (everybody, BUSY_POLL_S, ["train"]),
    ]
