"""The engine of long-term memories on every database: what it keeps, finds, replaces and forgets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ctxmem.errors import Conflict, InvalidInput, NotFound
from ctxmem.ids import new_id
from ctxmem.manager import ContextManager
from ctxmem.manager.engine import Engine, open_engine
from ctxmem.memories import Memories, Selection, Terms, Wanted
from ctxmem.memory import Scope
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.sql import SqlStore
from ctxmem.testing import LengthScorer, WordCounter


@pytest.fixture
def manager(store: SqlStore) -> ContextManager:
    """A manager in a tenant of this test's own."""
    engine = Engine(store, MemoryCache(), lambda model: WordCounter(), LengthScorer())
    return ContextManager(engine, tenant=new_id("tenant"))


@pytest.fixture
def memories(manager: ContextManager) -> Memories:
    return manager.memories


class Clock:
    """A time that tests set."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def texts(memories: Memories, query: str, who: Any = "ann", **wanted: Any) -> list[str]:
    """What a search finds, best first."""
    return [hit.memory.text for hit in memories.search(query, who, Wanted(**wanted)).hits]


class TestAdding:
    def test_statements_are_kept_with_the_spans_they_stand_on(
        self, memories: Memories, manager: ContextManager
    ) -> None:
        """In the session they are from, and greetings are not kept."""
        said = {"role": "user", "content": "Hi! My sister plays the  cello in Graz. How are you?"}
        (done,) = memories.add([said], Scope("ann", session_id="s")).results
        assert (done.event, done.text) == ("ADD", "My sister plays the cello in Graz.")
        (source,) = memories.get(done.id).sources
        event = manager.engine.store.event(manager.tenant, source.event_id)
        assert event is not None
        assert event.session_id == source.session_id == "s"
        assert said["content"][source.start : source.end] == "My sister plays the  cello in Graz."

    def test_what_is_in_the_session_already_is_not_logged_again(self, manager: ContextManager) -> None:
        """Its memories name the event that was there."""
        (event_id,) = manager.session("s").append([{"role": "user", "content": "I play chess on Mondays."}]).event_ids
        told = manager.memories.add([{"role": "user", "content": "I play chess on Mondays."}], Scope("a", "", "s"))
        assert manager.memories.get(told.results[0].id).sources[0].event_id == event_id
        assert manager.session("s").head.events == 1

    def test_what_ctxmem_put_in_never_becomes_a_memory(self, memories: Memories) -> None:
        """Lines under a handle are its own, whoever repeats them."""
        (first,) = memories.add("The blue key opens the cellar.", "ann").results
        echoed = f"Recalled:\n[{first.id}] The blue key opens the cellar.\n[{new_id('ev')}] Somebody said that once."
        assert memories.add([{"role": "assistant", "content": echoed}], "ann").results == ()

    def test_the_same_again_is_known(self, memories: Memories) -> None:
        """In other case and marks too, or in nearly the same words; it stands on both places then."""
        (first,) = memories.add("The blue key opens the old cellar door under the stairs of our house.", "ann").results
        (second,) = memories.add(
            "the blue key opens the old cellar door, under the stairs of our house!!", "ann"
        ).results
        assert (second.event, second.id) == ("NONE", first.id)
        assert len(memories.get(first.id).sources) == 2
        assert len(memories.list("ann")) == 1

    def test_other_numbers_or_another_sign_are_something_else(self, memories: Memories) -> None:
        """However alike the words are."""
        for text in ("The train leaves at 9:15 from Graz.", "The train leaves at 9:45 from Graz."):
            assert memories.add(text, "ann").results[0].event == "ADD"
        assert memories.add("The train never leaves at 9:45 from Graz.", "ann").results[0].event == "ADD"

    def test_what_is_settled_anew_takes_the_place(self, memories: Memories) -> None:
        """The older one is found as of its time only."""
        (old,) = memories.add("I live in Oslo.", "ann", terms=Terms(valid_from=100.0)).results
        (new,) = memories.add("I moved to Bergen.", "ann", terms=Terms(valid_from=200.0)).results
        assert (new.event, new.supersedes) == ("UPDATE", old.id)
        assert texts(memories, "where does ann live or moved") == ["I moved to Bergen."]
        assert texts(memories, "where does ann live or moved", as_of=150.0) == ["I live in Oslo."]
        assert texts(memories, "where does ann live or moved", as_of=50.0) == []
        kept = memories.get(old.id)
        assert (kept.status, kept.valid_to, kept.superseded_by) == ("superseded", 200.0, new.id)
        assert [change.op for change in memories.history(old.id)] == ["ADD", "SUPERSEDE"]

    def test_what_is_told_late_does_not_replace_what_is_newer(self, memories: Memories) -> None:
        """It was true until the newer one began."""
        memories.add("I moved to Bergen.", "ann", terms=Terms(valid_from=200.0))
        memories.add("I live in Oslo.", "ann", terms=Terms(valid_from=100.0))
        assert texts(memories, "ann live moved") == ["I moved to Bergen."]
        assert texts(memories, "ann live moved", as_of=150.0) == ["I live in Oslo."]

    def test_within_one_call_later_words_win(self, memories: Memories) -> None:
        """And the same twice is one."""
        told = memories.add("My budget is 500 euros. My budget is 700 euros. My budget is 700 euros.", "ann")
        assert [one.event for one in told.results] == ["ADD", "UPDATE", "NONE"]
        assert texts(memories, "budget") == ["My budget is 700 euros."]

    def test_writers_at_once_add_a_statement_once(self, memories: Memories, manager: ContextManager) -> None:
        """From several managers, as several processes are."""
        others = [Memories(manager.engine.store.memories, manager.tenant) for _ in range(4)]

        def write(number: int) -> list[str]:
            told = others[number % 4].add(f"I have a parrot. My neighbour owns {number} goats.", "ann")
            return [one.id for one in told.results]

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        listed = [one.text for one in memories.list("ann")]
        assert len(listed) == len(set(listed)) == 8

    def test_the_same_key_gives_the_first_answer(self, memories: Memories) -> None:
        """Another call under it is a conflict."""
        first = memories.add("I keep bees.", "ann", key="k")
        assert memories.add("I keep bees.", "ann", key="k") == first
        with pytest.raises(Conflict):
            memories.add("I keep wasps.", "ann", key="k")
        assert [one.text for one in memories.list("ann")] == ["I keep bees."]

    @pytest.mark.parametrize("told", ["", "  ", [], [{"role": "user", "content": ""}], "x" * 1_000_001])
    def test_nothing_or_too_much_is_refused(self, memories: Memories, told: Any) -> None:
        """With an error of ours, and nothing is written."""
        with pytest.raises(InvalidInput):
            memories.add(told, "ann")
        assert memories.list("ann") == []

    def test_an_agent_alone_can_have_memories(self, memories: Memories) -> None:
        """Of no user; they are found by the agent."""
        for _ in range(2):
            told = memories.add("The cellar floods in spring.", Scope(agent_id="bot"))
        assert told.results[0].event == "NONE"
        assert texts(memories, "cellar", Scope(agent_id="bot")) == ["The cellar floods in spring."]


class TestReading:
    def test_scopes_narrow(self, memories: Memories) -> None:
        """By session and agent within a user; another user sees nothing."""
        memories.add("I like my grey cat.", Scope("ann", "one", "s1"))
        memories.add("I like my black dog.", Scope("ann", "two", "s2"))
        assert texts(memories, "cat dog", Scope("ann", "one")) == ["I like my grey cat."]
        assert texts(memories, "cat dog", Scope("ann", session_id="s2")) == ["I like my black dog."]
        assert texts(memories, "cat dog", "bob") == []
        with pytest.raises(InvalidInput):
            memories.search("cat", "")

    def test_filters_thresholds_and_bounds(self, memories: Memories) -> None:
        """Over metadata and fields."""
        for number in range(5):
            memories.add(f"Ticket {number} is about trains.", "ann", terms=Terms({"n": number, "tags": ["rail"]}))
        assert len(texts(memories, "trains", filters={"n": {"gte": 3}, "tags": {"contains": "Rail"}})) == 2
        assert len(texts(memories, "trains", filters={"OR": [{"n": 1}, {"NOT": {"n": {"lt": 4}}}]})) == 2
        assert len(texts(memories, "trains", top_k=3)) == 3
        assert texts(memories, "ticket 2 trains zebra", threshold=0.99) == []
        for wrong in ({"n": {"near": 1}}, {"AND": {}}, {"n": {"in": 3}}, ["n"]):
            with pytest.raises(InvalidInput):
                texts(memories, "trains", filters=wrong)

    def test_what_has_expired_is_not_found(self, store: SqlStore) -> None:
        """And can be swept."""
        clock = Clock()
        memories = Memories(store.memories, new_id("tenant"), clock=clock)
        memories.add("The door code is 1234.", "ann", terms=Terms(expires_at=2_000.0))
        memories.add("The door is green.", "ann")
        assert len(texts(memories, "door")) == 2
        clock.now = 2_000.0
        assert texts(memories, "door") == ["The door is green."]
        assert len(memories.forget("ann", Selection(expired=True), dry_run=False).ids) == 1
        assert [one.text for one in memories.list("ann")] == ["The door is green."]

    def test_another_process_is_seen(self, memories: Memories, manager: ContextManager) -> None:
        """What it writes, changes, deletes and erases, at the next search."""
        other = Memories(manager.engine.store.memories, manager.tenant)
        (one,) = other.add("I keep bees in Graz.", "ann").results
        assert texts(memories, "bees") == ["I keep bees in Graz."]
        other.update(one.id, "I keep wasps in Graz.")
        assert texts(memories, "graz") == ["I keep wasps in Graz."]
        other.delete(one.id)
        assert texts(memories, "graz") == []
        other.add("I keep ants in Graz.", "ann")
        assert texts(memories, "graz") == ["I keep ants in Graz."]
        manager.engine.store.erase_user(manager.tenant, "ann")
        assert texts(memories, "graz") == []

    def test_meaning_counts_where_an_embedder_is_set(self, memories: Memories, manager: ContextManager) -> None:
        """Exactly as weighted, and words alone decide while it is away."""
        from ctxmem.errors import Unavailable
        from ctxmem.memories import Models

        memories.add("I adopted a kitten.", "ann")
        memories.add("I bought a piano.", "ann")
        meaning = Models(lambda query, all: [1.0 if "kitten" in text else 0.0 for text in all])
        hybrid = Memories(manager.engine.store.memories, manager.tenant, models=meaning).search("my pets", "ann")
        assert (hybrid.by, hybrid.hits[0].memory.text) == ("hybrid", "I adopted a kitten.")
        assert hybrid.hits[0].why == {"lexical": 0.0, "dense": 1.0}

        def away(query: str, all: Any) -> list[float]:
            raise Unavailable("gone")

        found = Memories(manager.engine.store.memories, manager.tenant, models=Models(away)).search("piano", "ann")
        assert (found.by, [hit.memory.text for hit in found.hits]) == ("lexical", ["I bought a piano."])


class TestChanging:
    def test_an_update_keeps_what_was_before(self, memories: Memories) -> None:
        """At the revision the caller saw, and only there."""
        (one,) = memories.add("I keep bees.", "ann").results
        changed = memories.update(one.id, "I keep wasps.", expected=1)
        assert (changed.revision, memories.get(one.id).text) == (2, "I keep wasps.")
        for stale in (lambda: memories.update(one.id, "x", expected=1), lambda: memories.delete(one.id, expected=1)):
            with pytest.raises(Conflict):
                stale()
        assert [(c.op, c.before, c.after) for c in memories.history(one.id)] == [
            ("ADD", "", "I keep bees."),
            ("UPDATE", "I keep bees.", "I keep wasps."),
        ]

    def test_a_deletion_leaves_the_date_and_no_word(self, memories: Memories) -> None:
        """Twice is not found."""
        (one,) = memories.add("I keep bees.", "ann").results
        memories.delete(one.id, expected=1)
        assert [(c.op, c.before, c.after) for c in memories.history(one.id)] == [("ADD", "", ""), ("DELETE", "", "")]
        for gone in (memories.get, memories.delete, memories.update):
            with pytest.raises(NotFound):
                gone(one.id)

    def test_forgetting_says_first_what_it_would_do(self, memories: Memories) -> None:
        """And never takes everything by accident."""
        memories.add("Bob owes me money. Bob plays golf. Eve plays chess.", "ann")
        memories.add("Eve paints.", "ann")
        dry = memories.forget("ann", Selection(about="Eve"))
        assert (len(dry.ids), dry.dry_run, len(memories.list("ann"))) == (2, True, 2)
        with pytest.raises(InvalidInput):
            memories.forget("ann", Selection(), dry_run=False)
        assert len(memories.forget("ann", Selection(about="Eve paints"), dry_run=False).ids) == 1
        assert len(memories.forget("ann", Selection(everything=True), dry_run=False).ids) == 1
        assert memories.list("ann") == []

    def test_a_profile_shows_what_is_settled_and_what_is_new(self, memories: Memories) -> None:
        """Each topic once, as it holds."""
        for text in ("I live in Oslo.", "My name is Ann.", "I moved to Bergen.", "The cellar floods in spring."):
            memories.add(text, "ann")
        known = memories.profile("ann")
        assert [one.text for one in known.settled] == ["I moved to Bergen.", "My name is Ann."]
        assert [one.text for one in known.recent] == ["The cellar floods in spring."]
        assert (known.total, known.version) == (3, 5)


class TestExchange:
    @pytest.mark.parametrize("shape", ["ctxmem", "mem0"])
    def test_what_is_exported_can_be_brought_in(self, memories: Memories, shape: str) -> None:
        """By whoever takes it, once."""
        memories.add("I keep bees. They are striped.", "ann", terms=Terms({"a": [1]}, valid_from=50.0, expires_at=9e9))
        rows = list(memories.export("ann", shape=shape))
        assert [one.event for one in memories.load(rows, "bob")] == ["ADD"]
        assert [one.event for one in memories.load(rows, "bob")] == ["NONE"]
        (mine,), (theirs,) = memories.list("ann"), memories.list("bob")
        assert (theirs.text, theirs.metadata, theirs.valid_from) == (mine.text, mine.metadata, mine.valid_from)
        assert theirs.expires_at == (mine.expires_at if shape == "ctxmem" else None)

    @pytest.mark.parametrize("row", [{}, {"memory": 3}, {"memory": "a", "created_at": "soon"}, "text", {"text": " "}])
    def test_a_wrong_row_brings_nothing_in(self, memories: Memories, row: Any) -> None:
        """Nor do the good ones beside it come in."""
        with pytest.raises(InvalidInput):
            memories.load([{"memory": "I keep bees."}, row], "ann")
        assert memories.list("ann") == []


@pytest.mark.model
def test_the_packaged_embedder_finds_by_meaning() -> None:
    """No word in common, and the right one first."""
    manager = ContextManager(open_engine("sqlite://", embedder="minilm"))
    manager.memories.add("My kitten scratched the sofa. The train to Graz was cancelled.", "ann")
    manager.memories.add("We ordered new windows.", "ann")
    found = manager.memories.search("pets and furniture", "ann")
    assert found.by == "hybrid"
    assert found.hits[0].memory.text.startswith("My kitten scratched the sofa.")
    assert found.hits[0].why["lexical"] == 0.0
    manager.close()
