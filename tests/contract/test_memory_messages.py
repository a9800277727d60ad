"""Whole messages on every database: what of one message holds is found and given together."""

from __future__ import annotations

import pytest

from ctxmem.ids import new_id
from ctxmem.manager import ContextManager
from ctxmem.manager.engine import Engine
from ctxmem.memories import Found, Memories, Terms, Wanted
from ctxmem.memories.lexicon import Lexicon
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.sql import SqlStore
from ctxmem.testing import LengthScorer, WordCounter

BOAT = "My boat is called Swallow."
LONG = f"My name is Ann. {BOAT} I live in Graz."


@pytest.fixture
def memories(store: SqlStore) -> Memories:
    engine = Engine(store, MemoryCache(), lambda model: WordCounter(), LengthScorer())
    return ContextManager(engine, tenant=new_id("tenant")).memories


def whole(memories: Memories, query: str, **wanted: object) -> Found:
    return memories.search(query, "ann", Wanted(whole=True, **wanted))  # type: ignore[arg-type]


def test_a_message_comes_whole_and_once(memories: Memories) -> None:
    """By its best memory, its statements in the order in which they were said."""
    told = memories.add(LONG, "ann").results
    memories.add("The sea is cold in May.", "ann")
    (hit,) = whole(memories, "what is my boat called, and my name").hits
    assert len(told) > 1
    assert [one.id for one in hit.beside] == [one.id for one in told]
    assert hit.text == LONG
    assert hit.memory.id in {one.id for one in told}
    assert hit.score <= max(one.score for one in memories.search("what is my boat called, and my name", "ann").hits)


def test_what_no_longer_holds_is_left_out(memories: Memories) -> None:
    """Deleted, superseded or expired; as of its time, what was superseded is there again."""
    first = memories.add(LONG, "ann", terms=Terms(valid_from=1_000.0)).results
    memories.add("I live in Linz.", "ann", terms=Terms(valid_from=2_000.0))
    assert "Graz" not in whole(memories, "boat").hits[0].text
    assert "Graz" in whole(memories, "boat", as_of=1_500.0).hits[0].text
    (named,) = [one.id for one in first if "Ann" in one.text]
    memories.delete(named)
    assert "Ann" not in whole(memories, "boat", as_of=1_500.0).hits[0].text


def test_filters_reach_into_a_message(memories: Memories) -> None:
    memories.add(LONG, "ann")
    kept = whole(memories, "boat Graz", filters={"topic": "user:live"}).hits
    assert [hit.text for hit in kept] == ["I live in Graz."]


def test_a_threshold_is_of_the_message(memories: Memories) -> None:
    memories.add(LONG, "ann")
    (hit,) = whole(memories, "boat").hits
    assert whole(memories, "boat", threshold=hit.score).hits
    assert not whole(memories, "boat", threshold=hit.score + 0.01).hits


def test_memories_without_a_source_stand_alone(store: SqlStore) -> None:
    """What was brought in from elsewhere, or kept without a log."""
    memories = Memories(store.memories, new_id("tenant"))
    memories.add(LONG, "ann")
    hits = memories.search("boat name Graz", "ann", Wanted(whole=True)).hits
    assert len(hits) > 1
    assert all(hit.beside == (hit.memory,) for hit in hits)


def test_what_an_assistant_said_counts_less(memories: Memories) -> None:
    """The same words by the user come first, whoever said them first."""
    for role in ("assistant", "user"):
        memories.add([{"role": role, "content": f"The heron's nest is by the lake, says the {role}."}], "ann")
    hits = memories.search("where is the nest of the heron", "ann").hits
    assert [hit.memory.speaker for hit in hits] == ["user", "assistant"]
    assert hits[1].score == pytest.approx(0.7 * hits[1].why["lexical"])


def test_a_long_text_does_not_win_by_its_length() -> None:
    """Of two texts with the word, the short one says more of it."""
    lexicon = Lexicon()
    lexicon.put("long", "heron " + "reed water wind stone bird " * 30)
    lexicon.put("short", "a heron stood")
    found = lexicon.scores("heron")
    assert found["long"] < 0.8 * found["short"]
