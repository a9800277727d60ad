"""Erasing over the manager: caches of all processes, sessions that got their user late, what is told elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctxmem.compressors.lexical import Lexical
from ctxmem.manager import ContextManager
from ctxmem.manager.engine import Engine
from ctxmem.memory import Scope
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.sql import SqlStore
from tests.unit.manager.conftest import word_counter
from tests.unit.manager.test_arrive import user


@pytest.fixture
def cache() -> MemoryCache:
    """Shared, as Redis would be."""
    return MemoryCache()


@pytest.fixture
def pair(path: Path, cache: MemoryCache) -> Iterator[tuple[ContextManager, ContextManager]]:
    """Two processes over one database and one cache."""
    engines = [Engine(SqlStore(f"sqlite:///{path}"), cache, word_counter, Lexical()) for _ in range(2)]
    managers = [ContextManager(engine) for engine in engines]
    yield managers[0], managers[1]
    for manager in managers:
        manager.close()


def branched(cm: ContextManager) -> None:
    """A session of ann's whose second branch is in the shared cache."""
    cm.session("s", user_id="ann").append([user("one"), {"role": "assistant", "content": "two"}])
    asked = [user("one"), {"role": "assistant", "content": "another two"}, user("three")]
    cm.prepare("s", asked, 1000)
    cm.record("s", "four")
    assert cm.session("s").head.branches == 2


def test_another_process_empties_the_cache(pair: tuple[ContextManager, ContextManager], cache: MemoryCache) -> None:
    """Of all branches, and of what was made from the user's texts without a name; other tenants keep theirs."""
    one, other = pair
    branched(one)
    cache.put("default", "nats2:of a text", b"1", ttl=60)
    cache.put("b", "nats2:of a text", b"1", ttl=60)
    assert {key for tenant, key in cache._kept if tenant == "default"} >= {"live:s:0", "live:s:1"}
    other.erase_user("ann")
    assert list(cache._kept) == [("b", "nats2:of a text")]


def test_another_process_forgets_the_memories(pair: tuple[ContextManager, ContextManager]) -> None:
    """Though as many have been added since as it knew, or more; and it can add some itself."""
    one, other = pair
    for later in (["New."], ["Newer.", "Newest.", "Last."]):
        one.memories.add("Old.", "ann")
        assert "Old." in [memory.text for memory in other.memories.list(Scope("ann"))]
        one.erase_user("ann")
        for text in later:
            one.memories.add(text, "ann")
        assert [memory.text for memory in other.memories.list(Scope("ann"))] == later
        assert other.memories.profile("ann").version == one.memories.profile("ann").version
        other.memories.add("Added elsewhere.", "ann")
        assert [memory.text for memory in one.memories.list(Scope("ann"))] == [*later, "Added elsewhere."]


def test_an_erased_session_leaves_no_branch_in_the_cache(
    pair: tuple[ContextManager, ContextManager], cache: MemoryCache
) -> None:
    """Though the process that erases it never had it."""
    one, other = pair
    branched(one)
    other.session("s").erase()
    assert not [key for _, key in cache._kept if key.startswith("live:s:")]


def test_what_goes_on_in_another_process_meets_a_new_session(pair: tuple[ContextManager, ContextManager]) -> None:
    """Nothing of the old one is in it."""
    one, other = pair
    branched(one)
    other.erase_user("ann")
    one.prepare("s", [user("hello")], 1000)
    assert [event.raw for event in other.session("s").events()] == [event.raw for event in one.session("s").events()]
    assert len(other.session("s").events()) == 1


class TestOwner:
    def test_a_session_of_nobody_becomes_the_first_users(self, cm: ContextManager) -> None:
        """By an append or a request; from then on it stays theirs, and goes with them."""
        cm.prepare("s", [user("hi")], 1000)
        cm.session("t").append([user("hi")])
        cm.session("s", user_id="ann").append([user("more")])
        cm.memories.add("I keep bees.", Scope("ann", session_id="t"))
        cm.session("s", user_id="bob").append([user("and more")])
        assert [cm.session(name).head.user_id for name in "st"] == ["ann", "ann"]
        assert cm.erase_user("ann").counts["sessions"] == 2
        assert cm.engine.store.sessions("default") == []

    def test_what_a_user_tells_is_never_in_another_users_session(self, cm: ContextManager) -> None:
        """It goes with who told it, and what the other said stays."""
        cm.session("s", user_id="bob").append([user("hi")])
        cm.memories.add("I keep bees.", Scope("ann", session_id="s"))
        assert len(cm.session("s").events()) == 1
        (found,) = cm.memories.search("bees", Scope("ann", session_id="s")).hits
        assert found.memory.sources[0].session_id == "memories/ann"
        cm.erase_user("ann")
        assert [one.id for one in cm.engine.store.sessions("default")] == ["s"]

    def test_an_agent_and_a_user_of_one_name_are_two(self, cm: ContextManager) -> None:
        """What is told to the one stays when the other goes."""
        cm.memories.add("I keep bees.", Scope(agent_id="ann"))
        cm.memories.add("I keep wasps.", Scope("ann"))
        cm.erase_user("ann")
        assert [hit.memory.text for hit in cm.memories.search("bees wasps", Scope(agent_id="ann")).hits] == [
            "I keep bees."
        ]

    def test_users_with_long_names_do_not_share_a_session(self, cm: ContextManager) -> None:
        """Which would go with the one and not with the other."""
        names = ["n" * 255 + end for end in "ab"]
        for name in names:
            cm.memories.add(f"I am {name[-1]} and keep bees.", name)
        cm.erase_user(names[0])
        assert len(cm.engine.store.sessions("default", user_id=names[1])) == 1
        assert len(cm.memories.search("bees", names[1]).hits) == 1
