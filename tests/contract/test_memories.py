"""Long-term memories on every database: written whole, in order, once; read by one tenant only."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from ctxmem.errors import Conflict, InvalidInput
from ctxmem.ids import new_id
from ctxmem.memory import Memory, MemoryBatch, MemoryChange, Scope, Source
from ctxmem.stores.memories import SqlMemories
from tests.contract.conftest import Log


def memory(text: str, user: str = "alice", **changed: Any) -> Memory:
    """A memory with every field set that a new one has."""
    made = Memory(
        id=new_id("mem"),
        user_id=user,
        agent_id="",
        session_id="",
        text=text,
        speaker="Alice",
        valid_from=100.5,
        recorded_at=200.25,
        digest=hashlib.blake2b(text.encode(), digest_size=16).digest(),
        metadata={"tags": ["ü", 1, None]},
        sources=(Source("ev_1", 0, len(text), "s", "ab"),),
    )
    return replace(made, **changed)


def added(*made: Memory, user: str = "alice", **rest: Any) -> MemoryBatch:
    """The batch that adds memories."""
    changes = tuple(MemoryChange(one.id, "ADD", after=one.text, at=one.recorded_at) for one in made)
    return MemoryBatch(user, put=made, changes=changes, **rest)


@pytest.fixture
def kept(log: Log) -> SqlMemories:
    return log.store.memories


class TestWriting:
    def test_a_memory_comes_back_as_it_was(self, kept: SqlMemories, log: Log) -> None:
        """Every field, the sources and the caller's metadata included."""
        made = memory("I moved to Zürich 🏔", valid_to=300.0, expires_at=1e12, topic="alice:live", agent_id="a")
        kept.apply(log.tenant, added(made)).result()
        assert kept.kept(log.tenant, [made.id]) == [made]

    def test_changes_are_numbered_in_order(self, kept: SqlMemories, log: Log) -> None:
        """Over all memories of the user; the version is the number of the newest."""
        one, two = memory("a"), memory("b")
        stored = kept.apply(log.tenant, added(one, two)).result()
        assert [change.version for change in stored.changes] == [1, 2]
        assert kept.version(log.tenant, "alice") == 2
        assert kept.version(log.tenant, "bob") == 0
        assert kept.changed(log.tenant, "alice", 1) == [two.id]
        assert kept.changes(log.tenant, one.id) == [stored.changes[0]]

    def test_a_memory_is_replaced_at_the_revision_that_was_read(self, kept: SqlMemories, log: Log) -> None:
        """Whoever read an older one gets a conflict, and changes nothing."""
        made = memory("before")
        kept.apply(log.tenant, added(made)).result()
        better = replace(made, text="after", revision=2)
        change = MemoryChange(made.id, "UPDATE", "before", "after")
        kept.apply(log.tenant, MemoryBatch("alice", put=(better,), changes=(change,))).result()
        with pytest.raises(Conflict):
            kept.apply(log.tenant, MemoryBatch("alice", put=(better,), changes=(change,))).result()
        assert kept.kept(log.tenant, [made.id]) == [better]
        assert [change.op for change in kept.changes(log.tenant, made.id)] == ["ADD", "UPDATE"]

    def test_a_failed_batch_leaves_nothing(self, kept: SqlMemories, log: Log) -> None:
        """Its good half neither: all or nothing."""
        good, stale = memory("good"), memory("stale", revision=7)
        with pytest.raises(Conflict):
            kept.apply(log.tenant, added(good, stale)).result()
        assert kept.scoped(log.tenant, Scope("alice")) == []
        assert kept.version(log.tenant, "alice") == 0

    def test_a_writer_that_saw_an_older_version_gets_a_conflict(self, kept: SqlMemories, log: Log) -> None:
        """What it decided on, such as that a statement is new, may no longer hold."""
        kept.apply(log.tenant, added(memory("a"), expected=0)).result()
        with pytest.raises(Conflict):
            kept.apply(log.tenant, added(memory("a"), expected=0)).result()
        assert len(kept.scoped(log.tenant, Scope("alice"))) == 1

    def test_of_writers_at_once_one_wins(self, kept: SqlMemories, log: Log) -> None:
        """When all of them saw the same version."""

        def write(number: int) -> bool:
            try:
                kept.apply(log.tenant, added(memory(f"m{number}"), expected=0)).result()
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(write, range(6))) == 1
        assert len(kept.scoped(log.tenant, Scope("alice"))) == 1

    def test_further_sources_are_added_once(self, kept: SqlMemories, log: Log) -> None:
        """The same statement heard again stands on both places."""
        made = memory("a")
        kept.apply(log.tenant, added(made)).result()
        again = Source("ev_2", 3, 4, "t", "ab")
        for _ in range(2):
            kept.apply(log.tenant, MemoryBatch("alice", sources={made.id: (again,)})).result()
        assert kept.kept(log.tenant, [made.id])[0].sources == (*made.sources, again)

    @pytest.mark.parametrize("bad", [{"text": "a\ud800b"}, {"metadata": {"x": object()}}])
    def test_what_has_no_stored_form_is_refused(self, kept: SqlMemories, log: Log, bad: dict[str, Any]) -> None:
        """With an error of ours, and nothing is written."""
        with pytest.raises(InvalidInput):
            kept.apply(log.tenant, added(replace(memory("a"), **bad))).result()
        assert kept.scoped(log.tenant, Scope("alice")) == []


class TestIdempotency:
    def test_the_same_key_gives_the_first_answer(self, kept: SqlMemories, log: Log) -> None:
        """And writes nothing the second time."""
        batch = added(memory("a"), key="k", digest=b"asked", result=b'{"results":[]}')
        kept.apply(log.tenant, batch).result()
        again = kept.apply(log.tenant, added(memory("a"), key="k", digest=b"asked", result=b"other")).result()
        assert again.result == batch.result == kept.replayed(log.tenant, "k", b"asked")
        assert again.put == ()
        assert len(kept.scoped(log.tenant, Scope("alice"))) == 1

    def test_a_key_stands_for_one_call(self, kept: SqlMemories, log: Log) -> None:
        """Used for another one it is a conflict; unused it is free."""
        assert kept.replayed(log.tenant, "k", b"one") is None
        kept.apply(log.tenant, added(memory("a"), key="k", digest=b"one", result=b"{}")).result()
        with pytest.raises(Conflict):
            kept.replayed(log.tenant, "k", b"two")
        with pytest.raises(Conflict):
            kept.apply(log.tenant, added(memory("b"), key="k", digest=b"two")).result()

    def test_a_call_that_failed_does_not_hold_its_key(self, kept: SqlMemories, log: Log) -> None:
        """It may be tried again."""
        with pytest.raises(Conflict):
            kept.apply(log.tenant, added(memory("a"), key="k", digest=b"x", expected=9)).result()
        assert kept.replayed(log.tenant, "k", b"x") is None


class TestReading:
    def test_a_scope_is_read_in_pages(self, kept: SqlMemories, log: Log) -> None:
        """By id; an empty field does not restrict."""
        made = [memory(f"m{i}", agent_id="even" if i % 2 == 0 else "odd", session_id=f"s{i}") for i in range(5)]
        kept.apply(log.tenant, added(*made)).result()
        first = kept.scoped(log.tenant, Scope("alice"), limit=2)
        assert first == made[:2]
        assert kept.scoped(log.tenant, Scope("alice"), after=first[-1].id) == made[2:]
        assert kept.scoped(log.tenant, Scope(agent_id="even")) == made[::2]
        assert kept.scoped(log.tenant, Scope("alice", "odd", "s3")) == [made[3]]
        assert kept.scoped(log.tenant, Scope("bob")) == []

    def test_those_alike_are_found_by_digest_or_topic(self, kept: SqlMemories, log: Log) -> None:
        """The user's own and active ones only."""
        live = memory("I live in Bern", topic="alice:live")
        old = memory("I live in Rome", topic="alice:live", status="superseded")
        kept.apply(log.tenant, added(live, old)).result()
        kept.apply(log.tenant, added(memory("I live in Bern", user="bob"), user="bob")).result()
        assert kept.alike(log.tenant, "alice", [live.digest], []) == [live]
        assert kept.alike(log.tenant, "alice", [live.digest, old.digest], ["alice:live"]) == [live]
        assert kept.alike(log.tenant, "alice", [], []) == []

    def test_more_than_one_query_holds(self, kept: SqlMemories, log: Log) -> None:
        """Long lists of ids are asked for in parts, each memory with its sources."""
        made = [memory(f"m{i}") for i in range(600)]
        kept.apply(log.tenant, added(*made)).result()
        found = kept.kept(log.tenant, [one.id for one in made])
        assert sorted(found, key=lambda one: one.id) == made

    def test_another_tenant_sees_nothing(self, kept: SqlMemories, log: Log) -> None:
        """Neither memories nor history, versions or keys; and it cannot change what it cannot see."""
        made = memory("secret", topic="t")
        kept.apply(log.tenant, added(made, key="k", digest=b"d", result=b"{}")).result()
        other = new_id("tenant")
        assert kept.kept(other, [made.id]) == kept.scoped(other, Scope("alice")) == kept.changes(other, made.id) == []
        assert kept.alike(other, "alice", [made.digest], ["t"]) == kept.changed(other, "alice", 0) == []
        assert kept.version(other, "alice") == 0
        assert kept.replayed(other, "k", b"else") is None
        with pytest.raises(Conflict):
            kept.apply(other, MemoryBatch("alice", put=(replace(made, text="mine", revision=2),))).result()
        with pytest.raises(Conflict):
            kept.apply(other, MemoryBatch("alice", delete={made.id: None})).result()
        assert kept.kept(log.tenant, [made.id]) == [made]


class TestDeleting:
    def test_the_words_go_from_the_history_too(self, kept: SqlMemories, log: Log) -> None:
        """That something was added and deleted stays; what it was does not."""
        made = memory("secret")
        kept.apply(log.tenant, added(made)).result()
        gone = MemoryBatch("alice", delete={made.id: 1}, changes=(MemoryChange(made.id, "DELETE", reason="asked"),))
        kept.apply(log.tenant, gone).result()
        assert kept.kept(log.tenant, [made.id]) == []
        history = kept.changes(log.tenant, made.id)
        assert [(change.op, change.before, change.after) for change in history] == [("ADD", "", ""), ("DELETE", "", "")]

    def test_only_at_the_revision_that_was_read(self, kept: SqlMemories, log: Log) -> None:
        """None means any; what is gone cannot be deleted again."""
        made = memory("a")
        kept.apply(log.tenant, added(made)).result()
        with pytest.raises(Conflict):
            kept.apply(log.tenant, MemoryBatch("alice", delete={made.id: 2})).result()
        kept.apply(log.tenant, MemoryBatch("alice", delete={made.id: None})).result()
        with pytest.raises(Conflict):
            kept.apply(log.tenant, MemoryBatch("alice", delete={made.id: None})).result()
