"""Memories of sessions over a real log, with the real model and an adapter that was never trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sqlalchemy import update

from ctxmem import ContextManager
from ctxmem.errors import NotFound
from ctxmem.lm.ccm.compressed import CompressedLM
from ctxmem.lm.ccm.memory import Memory
from ctxmem.lm.ccm.sessions import ENDLESS, SessionMemories, said
from ctxmem.ports import SlotName
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.slot_schema import slots
from ctxmem.stores.sql import SqlStore

pytestmark = pytest.mark.model

BUDGET = 900
LONG = "the harbour tram leaves at nine and comes back past the old mill where the bakery sells rye bread " * 3


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ContextManager]:
    opened = ContextManager(f"sqlite:///{tmp_path}/log.db", model="smollm2", policy="ccm")
    yield opened
    opened.close()


def store(manager: ContextManager) -> SqlStore:
    found = manager.engine.store
    assert isinstance(found, SqlStore)
    return found


def talk(manager: ContextManager, session: str, turns: int) -> SlotName:
    """Converse until the plan names a memory; its name."""
    for turn in range(turns):
        plan = manager.prepare(session, [{"role": "user", "content": f"{turn}: {LONG}"}], budget=BUDGET)
        manager.record(session, f"Answer {turn}: {LONG}")
    named = next(segment.memory for segment in plan.segments if segment.memory)
    return SlotName("default", session, named)


def made(memories: SessionMemories, name: SlotName) -> tuple[Memory, list[int]]:
    """The memory, and the steps it took."""
    work, steps = memories.make(name), []
    while True:
        try:
            steps.append(next(work))
        except StopIteration as done:
            return done.value, steps


def test_a_memory_takes_in_what_was_folded_behind_the_one_before(
    manager: ContextManager, compressed: CompressedLM
) -> None:
    """Across epochs; as if all of it had been compressed at once, and within its cap."""
    kept = store(manager)
    first = talk(manager, "s", 8)
    later = talk(manager, "s", 8)
    assert first != later
    memory, steps = made(SessionMemories(compressed, kept.slots, MemoryCache()), later)
    told, named = [], later
    while folded := kept.slots.folded(named):
        told = [folded, *told]
        states = [event.id for event in folded if event.kind == "state"]
        named = SlotName("default", "s", states[0] if states else "")
    assert len(told) > 1
    by_hand = compressed.empty(ENDLESS, tokens=4)
    for folded in told:
        by_hand = compressed.compress(by_hand, list(said(folded)))
    assert torch.equal(memory.states, by_hand.states)
    assert memory.steps == by_hand.steps == len(steps)
    assert memory.slots <= 9 * 4


def test_what_was_made_is_found_and_what_was_lost_is_made_again(
    manager: ContextManager, compressed: CompressedLM
) -> None:
    """In the store, in the shared cache, damaged or gone: always the same bits."""
    kept, cache, name = store(manager), MemoryCache(), talk(manager, "s", 8)
    memory, steps = made(SessionMemories(compressed, kept.slots, cache), name)
    assert steps
    fresh = SessionMemories(compressed, kept.slots, MemoryCache())
    found = fresh.find(name)
    assert found is not None
    assert torch.equal(found.states, memory.states)
    assert made(fresh, name)[1] == []
    with kept._engine.begin() as connection:
        connection.execute(update(slots).values(blob=b"damaged"))
    warm = SessionMemories(compressed, kept.slots, cache).find(name)
    assert warm is not None
    assert torch.equal(warm.states, memory.states)
    again, steps = made(SessionMemories(compressed, kept.slots, MemoryCache()), name)
    assert steps
    assert torch.equal(again.states, memory.states)


def test_nobody_elses_memory_is_made_or_found(manager: ContextManager, compressed: CompressedLM) -> None:
    """Another tenant, another session, an event that is no state."""
    name = talk(manager, "s", 8)
    memories = SessionMemories(compressed, store(manager).slots, MemoryCache())
    made(memories, name)
    for other in (
        SlotName("another", "s", name.event_id),
        SlotName("default", "t", name.event_id),
        SlotName("default", "s", "ev_0"),
    ):
        assert memories.find(other) is None
        with pytest.raises(NotFound):
            next(memories.make(other))


def test_erasing_the_session_leaves_nothing_in_store_or_cache(
    manager: ContextManager, compressed: CompressedLM
) -> None:
    name = talk(manager, "s", 8)
    cache = manager.engine.cache
    made(SessionMemories(compressed, store(manager).slots, cache), name)
    assert cache.get("default", name.cache_key)
    assert manager.session("s").erase().counts["slots"] == 1
    assert cache.get("default", name.cache_key) is None
    assert SessionMemories(compressed, store(manager).slots, cache).find(name) is None
