"""What every store promises, over every database."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Connection, update

from ctxmem.errors import Conflict, InvalidInput
from ctxmem.ids import new_id
from ctxmem.records import Batch, Event, LedgerEntry, Session
from ctxmem.stores import schema
from tests.contract.conftest import Log, request


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class TestWrite:
    def test_a_batch_is_read_back_as_it_was_written(self, log: Log) -> None:
        """Every record and every field."""
        entry = LedgerEntry("s", 0, 1, "ev_1", "pruned", "selective", "long", 9, 4, b"\x00short")
        asked = request("s", reply_id="ev_2", usage={"prompt_tokens": 5})
        batch = log.batch("s", "hello", "\x00 \u2028 \U0001f600", user="alice", entries=(entry,), request=asked)
        assert log.store.write(log.tenant, batch).result() == batch
        assert log.store.session(log.tenant, "s") == batch.session
        assert log.store.branch(log.tenant, "s", 0) == batch.branch
        assert log.store.events(log.tenant, "s") == list(batch.events)
        assert log.store.event(log.tenant, batch.events[1].id) == batch.events[1]
        assert log.store.ledger(log.tenant, "s", 0) == {"ev_1": entry}
        assert log.store.request(log.tenant, asked.id) == asked

    def test_what_is_not_there_is_none(self, log: Log) -> None:
        """Reading an empty log finds nothing and raises nothing."""
        read = log.store
        assert read.session(log.tenant, "s") is None
        assert read.branch(log.tenant, "s", 0) is None
        assert read.known(log.tenant, [b"x"]) is None
        assert read.known(log.tenant, []) is None
        assert read.event(log.tenant, "ev_1") is None
        assert read.request(log.tenant, "rq_1") is None
        assert read.artifact(log.tenant, "ab") is None
        assert (
            read.events(log.tenant, "s") == read.history(log.tenant, "s", 3) == read.events_by_id(log.tenant, []) == []
        )
        assert read.ledger(log.tenant, "s", 7) == {}
        assert read.sessions(log.tenant) == []
        assert read.requests(log.tenant) == []

    def test_a_writer_that_is_late_gets_a_conflict_and_changes_nothing(self, log: Log) -> None:
        """The revision is compared and set."""
        late = log.batch("s", "late", artifacts={sha(b"tools"): b"tools"})
        first = log.say("s", "first")
        with pytest.raises(Conflict):
            log.store.write(log.tenant, late).result()
        assert log.store.session(log.tenant, "s") == first.session
        assert log.store.events(log.tenant, "s") == list(first.events)
        assert log.store.artifact(log.tenant, sha(b"tools")) is None

    def test_a_batch_for_a_session_that_does_not_exist_conflicts(self, log: Log) -> None:
        """Only revision 0 makes a session."""
        with pytest.raises(Conflict):
            log.store.write(log.tenant, Batch(Session("s", revision=4), 3)).result()

    def test_one_of_many_concurrent_writers_wins(self, log: Log) -> None:
        """The others are told, and no event of theirs is there."""
        batches = [log.batch("s", f"writer {i}") for i in range(8)]
        with ThreadPoolExecutor(8) as pool:
            futures = list(pool.map(lambda batch: log.store.write(log.tenant, batch), batches))
        errors = [future.exception() for future in futures]
        assert sum(error is None for error in errors) == 1
        assert all(isinstance(error, Conflict) for error in errors if error is not None)
        assert len(log.store.events(log.tenant, "s")) == 1

    def test_a_conflict_does_not_hurt_its_neighbours(self, log: Log) -> None:
        """Writes that share a commit stand and fall alone."""
        good = [log.batch(f"s{i}", "hello") for i in range(10)]
        bad = [Batch(Session(f"x{i}", revision=9), 8) for i in range(10)]
        futures = [log.store.write(log.tenant, batch) for pair in zip(good, bad, strict=True) for batch in pair]
        outcomes = [type(future.exception()) for future in futures]
        assert outcomes == [type(None), Conflict] * 10
        assert len(log.store.sessions(log.tenant)) == 10

    @pytest.mark.parametrize("same", ["id", "seq", "chain"])
    def test_an_event_that_is_there_already_undoes_its_batch(self, log: Log, same: str) -> None:
        """Ids, places and chains are unique in a session."""
        first = log.say("s", "one").events[0]
        batch = log.batch("s", "two")
        twin = replace(batch.events[0], **{same: getattr(first, same)})
        with pytest.raises(Conflict):
            log.store.write(log.tenant, replace(batch, events=(twin,))).result()
        assert log.store.session(log.tenant, "s").revision == 1
        assert log.store.events(log.tenant, "s") == [first]

    def test_a_request_is_replaced_by_its_later_state(self, log: Log) -> None:
        """Built first, answered later."""
        built = request("s")
        log.say("s", "hello", request=built)
        answered = replace(built, status="answered", reply_id="ev_1", usage={"total_tokens": 7})
        log.say("s", "answer", request=answered)
        assert log.store.request(log.tenant, built.id) == answered
        assert log.store.requests(log.tenant) == [answered]

    @pytest.mark.parametrize("field", [{"id": "\ud800"}, {"user_id": "\udfff"}, {"turn": 2**70}])
    def test_a_value_no_database_can_hold_is_refused(self, log: Log, field: dict[str, object]) -> None:
        """A lone surrogate or a 71-bit number is the caller's mistake, and the next write works."""
        with pytest.raises(InvalidInput):
            log.store.write(log.tenant, Batch(replace(Session("s", revision=1), **field), 0)).result()
        assert log.say("s", "fine").session.revision == 1

    @pytest.mark.parametrize("raw", [b"", b"\x00", b"\xff\xfe", b"x" * 2_000_000], ids=["empty", "nul", "bad", "large"])
    def test_content_is_kept_byte_for_byte(self, log: Log, raw: bytes) -> None:
        """Whatever came is what comes back."""
        batch = log.batch("s", "placeholder")
        event = replace(batch.events[0], raw=raw)
        log.store.write(log.tenant, replace(batch, events=(event,))).result()
        assert log.store.event(log.tenant, event.id).raw == raw


class TestIdempotency:
    def test_the_same_key_and_words_give_the_first_batch(self, log: Log) -> None:
        """A retry under new ids and a newer revision writes nothing."""
        first = log.say("s", "hello", "there", idempotency_key="k")
        log.say("s", "meanwhile")
        retried = log.batch("s", "hello", "there", idempotency_key="k")
        assert log.store.write(log.tenant, retried).result() == first
        assert len(log.store.events(log.tenant, "s")) == 3

    @pytest.mark.parametrize(("session", "text"), [("s", "other"), ("other", "hello")])
    def test_the_same_key_for_something_else_conflicts(self, log: Log, session: str, text: str) -> None:
        """Other words, or another session."""
        log.say("s", "hello", idempotency_key="k")
        with pytest.raises(Conflict, match="idempotency key"):
            log.say(session, text, idempotency_key="k")
        assert log.store.session(log.tenant, "other") is None

    def test_a_key_is_free_again_when_its_batch_was_undone(self, log: Log) -> None:
        """A conflict does not use the key up."""
        late = log.batch("s", "hello", idempotency_key="k")
        log.say("s", "first")
        with pytest.raises(Conflict):
            log.store.write(log.tenant, late).result()
        assert log.say("s", "hello", idempotency_key="k").session.revision == 2

    def test_concurrent_retries_write_once(self, log: Log) -> None:
        """Everyone gets the batch of whoever came first."""
        batches = [log.batch("s", "hello", idempotency_key="k") for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            stored = list(pool.map(lambda batch: log.store.write(log.tenant, batch).result(), batches))
        assert all(batch == stored[0] for batch in stored)
        assert log.store.events(log.tenant, "s") == list(stored[0].events)


class TestKnown:
    def test_the_last_chain_that_is_known_names_the_event(self, log: Log) -> None:
        """However many after it are not."""
        said = log.say("s", "a", "b", "c").events
        chains = [event.chain for event in said]
        assert log.store.known(log.tenant, [*chains, b"new", b"newer"]) == said[2]
        assert log.store.known(log.tenant, chains[:2]) == said[1]
        assert log.store.known(log.tenant, [b"new"]) is None

    def test_the_newest_event_of_a_chain_wins(self, log: Log) -> None:
        """Two sessions may begin alike; the session can be named."""
        old, new = log.say("s1", "hi").events[0], log.say("s2", "hi").events[0]
        assert old.chain == new.chain
        assert log.store.known(log.tenant, [old.chain]) == new
        assert log.store.known(log.tenant, [old.chain], "s1") == old
        assert log.store.known(log.tenant, [old.chain], "s3") is None

    @pytest.mark.parametrize("place", [0, 1, 249, 250, 700, 1994, 1999])
    def test_a_long_history_is_searched_to_its_beginning(self, log: Log, place: int) -> None:
        """Wherever the last known chain stands among unknown ones, and others before it."""
        first, last = log.say("s", "hi", "ho").events
        chains = [i.to_bytes(16, "big") for i in range(2000)]
        chains[0], chains[place] = first.chain, last.chain
        assert log.store.known(log.tenant, chains) == last
        assert log.store.known(log.tenant, chains, "s") == last


class TestReads:
    def test_events_come_in_pages(self, log: Log) -> None:
        """By seq, after a seq, so many at a time."""
        said = list(log.say("s", *map(str, range(10))).events)
        assert log.store.events(log.tenant, "s", limit=4) == said[:4]
        assert log.store.events(log.tenant, "s", after_seq=3, limit=4) == said[4:8]
        assert log.store.events(log.tenant, "s", after_seq=9) == []

    def test_events_by_id_gives_those_that_exist(self, log: Log) -> None:
        """Any number of ids may be asked for."""
        said = log.say("s", *map(str, range(600))).events
        wanted = [*(event.id for event in said), *(f"ev_{i}" for i in range(600))]
        found = log.store.events_by_id(log.tenant, wanted)
        assert sorted(found, key=lambda event: event.seq) == list(said)

    def test_sessions_are_listed_by_id_and_user(self, log: Log) -> None:
        """In pages."""
        for name, user in [("a", "alice"), ("b", "bob"), ("c", "alice"), ("d", "")]:
            log.say(name, "hi", user=user)
        assert [s.id for s in log.store.sessions(log.tenant)] == ["a", "b", "c", "d"]
        assert [s.id for s in log.store.sessions(log.tenant, user_id="alice")] == ["a", "c"]
        assert [s.id for s in log.store.sessions(log.tenant, user_id="")] == ["d"]
        assert [s.id for s in log.store.sessions(log.tenant, after="b", limit=1)] == ["c"]

    def test_requests_are_listed_by_id_and_session(self, log: Log) -> None:
        """In pages."""
        made = [request("s" if i % 2 else "t", id=f"rq_{i}") for i in range(5)]
        for one in made:
            log.say(one.session_id, f"for {one.id}", request=one)
        assert log.store.requests(log.tenant) == made
        assert log.store.requests(log.tenant, session_id="s") == made[1::2]
        assert log.store.requests(log.tenant, after="rq_1", limit=2) == made[2:4]

    def test_readers_neither_see_nor_wait_for_a_write_under_way(self, log: Log) -> None:
        """They see what was committed last."""
        log.say("s", "hi")
        inside, leave = threading.Event(), threading.Event()

        def linger(connection: Connection) -> None:
            connection.execute(update(schema.sessions).where(schema.sessions.c.tenant == log.tenant).values(style="x"))
            inside.set()
            assert leave.wait(10)

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(lambda: log.store._commits.submit(linger).result())
            assert inside.wait(10)
            assert log.store.session(log.tenant, "s").style == ""
            leave.set()
            writing.result()
        assert log.store.session(log.tenant, "s").style == "x"


class TestArtifacts:
    @pytest.mark.parametrize("content", [b"", b"small", b"long " * 1000, bytes(range(256)) * 8])
    def test_content_comes_back_under_its_hash(self, log: Log, content: bytes) -> None:
        """Compressed at rest or not, and however often it is put."""
        assert log.store.put_artifact(log.tenant, content) == sha(content)
        assert log.store.put_artifact(log.tenant, content) == sha(content)
        assert log.store.artifact(log.tenant, sha(content)) == content

    def test_a_batch_keeps_its_artifacts(self, log: Log) -> None:
        """Those that are known are left alone."""
        for text in ("one", "two"):
            log.say("s", text, artifacts={sha(b"tools"): b"tools"})
        log.say("t", "three", artifacts={sha(b"tools"): b"tools"})
        assert log.store.artifact(log.tenant, sha(b"tools")) == b"tools"

    def test_content_under_a_wrong_hash_is_refused(self, log: Log) -> None:
        """A hash can be trusted."""
        with pytest.raises(InvalidInput):
            log.say("s", "hi", artifacts={sha(b"one"): b"two"})
        assert log.store.session(log.tenant, "s") is None


def test_health_names_the_state_of_each_part(log: Log) -> None:
    """Writable and up to date."""
    health = log.store.health()
    assert health["write"] == "ok"
    assert health["migrations"] == "head"
    assert health["dialect"] in ("sqlite", "postgresql")


def test_an_event_keeps_its_request_and_its_cut(log: Log) -> None:
    """The fields an answer has and a question has not."""
    batch = log.batch("s", "half an ans")
    cut = replace(batch.events[0], role="assistant", origin="upstream", request_id=new_id("rq"), complete=False)
    log.store.write(log.tenant, replace(batch, events=(cut,))).result()
    found = log.store.event(log.tenant, cut.id)
    assert isinstance(found, Event)
    assert (found.request_id, found.complete, found.origin) == (cut.request_id, False, "upstream")
