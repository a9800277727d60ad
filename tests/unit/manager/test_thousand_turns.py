"""A session of a thousand turns: caps held on every turn, and what is rebuilt from the log is what is live."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ctxmem import ContextManager
from ctxmem.manager.hot import HotStates
from ctxmem.manager.states import States
from ctxmem.stores.memory import MemoryCache
from ctxmem.testing import tool_call, tool_result

TURNS = 1000
BUDGET = 1500
PLACES = ["the harbour", "the mill", "gate 7", "the clock tower", "the night ferry"]


def said(rng: random.Random, turn: int) -> list[dict[str, object]]:
    """What is new in a turn; now and then a tool was called."""
    text = f"On day {turn} I went to {rng.choice(PLACES)} and paid {rng.randrange(99)} crowns. " * rng.randrange(1, 4)
    asked: list[dict[str, object]] = [{"role": "user", "content": text}]
    if turn % 10 == 9:
        log = "\n".join(f"{turn}:{line} the part was seen" for line in range(rng.randrange(5, 60)))
        asked += [tool_call(f"c{turn}"), tool_result(f"c{turn}", log)]
    return asked


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mem1", "balanced", "pencil"])
def test_a_thousand_turns(tmp_path: Path, policy: str) -> None:
    """Prompt and state under their caps on each; at a hundred of them the log and the ledger give the live state."""
    rng = random.Random(11)
    marks = set(rng.sample(range(1, TURNS), 100))
    manager = ContextManager(f"sqlite:///{tmp_path}/log.db", model="some-model", policy=policy)
    store, states = manager.engine.store, []
    for turn in range(TURNS):
        plan = manager.prepare("s", said(rng, turn), budget=BUDGET)
        assert plan.exact <= BUDGET
        manager.record("s", f"Noted day {turn}.")
        states += [segment.tokens for segment in plan.segments if segment.kind == "state"]
        if turn in marks:
            session = manager.session("s").head
            live = manager.engine.hot.load(manager.tenant, session, 0)
            again = HotStates(store, MemoryCache()).load(manager.tenant, session, 0)
            assert again.items == live.items
            assert again.sent == live.sent
            assert (again.surroundings, again.gone) == (live.surroundings, live.gone)
    assert max(states, default=0) <= BUDGET // 2
    assert bool(states) == (policy == "mem1")
    if policy == "mem1":
        assert len(States(manager, "s").versions()) > 10
    events = manager.session("s").events(limit=10_000)
    assert sum(event.role == "user" and event.kind is None for event in events) == TURNS
    manager.close()
