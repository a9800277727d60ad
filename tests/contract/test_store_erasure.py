"""Erasure removes every row, and nothing that is not asked for."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import select

from ctxmem.checkpoint import Checkpoint, CheckpointKey, Packed, PendingWrite
from ctxmem.errors import Conflict, InvalidInput, NotFound
from ctxmem.job import job
from ctxmem.ports import SlotName
from ctxmem.records import LedgerEntry
from ctxmem.stores import schema
from tests.contract.conftest import Log, request


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def rows(log: Log) -> dict[str, int]:
    """Rows of the tenant in every table that has any."""
    with log.store._reading() as connection:
        found = {
            table.name: len(connection.execute(select(table).where(table.c.tenant == log.tenant)).all())
            for table in schema.metadata.sorted_tables
        }
    return {name: count for name, count in found.items() if count}


def converse(log: Log, session: str, user: str = "") -> None:
    """Leave a row in every table that has a session."""
    tools = f"tools of {session}".encode()
    log.say(session, "hi", user=user, request=request(session), artifacts={sha(tools): tools, sha(b"all"): b"all"})
    event = log.say(session, "more", user=user, idempotency_key=f"key of {session}").events[0]
    log.fork(session, 0, 1, turn=1)
    log.book(session, LedgerEntry(session, 0, 1, event.id, "kept"))
    log.store.slots.keep(SlotName(log.tenant, session, event.id), "model", b"memory", versions=1)
    checkpoint = Checkpoint(CheckpointKey("c", session), None, Packed("s", b"state"), Packed("s", b"told"), {"ch": "h"})
    log.store.checkpoints.put(log.tenant, checkpoint, {"h": Packed("s", b"said")}).result()
    log.store.checkpoints.put_writes(
        log.tenant, checkpoint.key, [PendingWrite("t", 0, "", "ch", Packed("s", b"wrote"))]
    ).result()
    log.store.jobs.put(log.tenant, [job("index", {}, session_id=session, user_id=user)]).result()


def test_no_row_of_the_session_stays(log: Log) -> None:
    """The receipt counts them, and is itself the only thing left."""
    converse(log, "s")
    before = rows(log)
    memory = {"memories", "memory_sources", "memory_changes", "memory_heads", "memory_keys"}  # test_memory_erasure.py
    documents = {"documents", "chunks", "shelves", "folders", "folder_items"}  # test_documents.py, test_folders.py
    assert before.keys() == {t.name for t in schema.metadata.sorted_tables} - {"deletions"} - memory - documents
    erasure = log.store.erase_session(log.tenant, "s")
    assert rows(log) == {"deletions": 1}
    assert erasure.counts == before
    assert erasure.scope == "session:s"


def test_the_receipt_is_stored(log: Log) -> None:
    """As it was returned."""
    converse(log, "s")
    erasure = log.store.erase_session(log.tenant, "s")
    with log.store._reading() as connection:
        kept = connection.execute(select(schema.deletions).where(schema.deletions.c.tenant == log.tenant)).one()
    assert kept[1:] == (erasure.id, erasure.scope, erasure.counts, erasure.ids_sha256, erasure.at)


def test_the_receipt_hashes_the_ids_that_went(log: Log) -> None:
    """Whoever knows the ids can check that they are among those erased."""
    asked = request("s")
    event = log.say("s", "hi", request=asked, artifacts={sha(b"a"): b"a"}).events[0]
    ids = sorted(["s", event.id, asked.id, sha(b"a")])
    assert log.store.erase_session(log.tenant, "s").ids_sha256 == sha("\n".join(ids).encode())


def test_other_sessions_stay_whole(log: Log) -> None:
    """With the artifacts they share with the one that went."""
    converse(log, "kept")
    alone = rows(log)
    converse(log, "gone")
    log.store.erase_session(log.tenant, "gone")
    assert rows(log) == {**alone, "deletions": 1}
    assert log.store.artifact(log.tenant, sha(b"all")) == b"all"
    assert log.store.artifact(log.tenant, sha(b"tools of gone")) is None


def test_content_kept_for_its_own_sake_stays(log: Log) -> None:
    """`put_artifact` belongs to no session."""
    log.store.put_artifact(log.tenant, b"all")
    converse(log, "s")
    log.store.erase_session(log.tenant, "s")
    assert log.store.artifact(log.tenant, sha(b"all")) == b"all"


def test_content_kept_for_a_session_goes_with_it(log: Log) -> None:
    """Of whatever user; a session that is not there, or no longer, keeps nothing."""
    log.say("s", "hi", user="alice")
    log.say("t", "hi")
    for content, session in [(b"one", "s"), (b"both", "s"), (b"both", "t")]:
        log.store.put_artifact(log.tenant, content, session_id=session)
    log.store.erase_user(log.tenant, "alice")
    assert log.store.artifact(log.tenant, sha(b"one")) is None
    assert log.store.artifact(log.tenant, sha(b"both")) == b"both"
    with pytest.raises(NotFound):
        log.store.put_artifact(log.tenant, b"one", session_id="s")
    assert log.store.artifact(log.tenant, sha(b"one")) is None


def test_a_user_goes_with_all_their_sessions(log: Log) -> None:
    """And nobody else's."""
    for name, user in [("a1", "alice"), ("b1", "bob"), ("a2", "alice"), ("n", "")]:
        converse(log, name, user)
    erasure = log.store.erase_user(log.tenant, "alice")
    assert erasure.counts["sessions"] == 2
    assert [session.id for session in log.store.sessions(log.tenant)] == ["b1", "n"]


def test_a_user_has_a_name(log: Log) -> None:
    """The empty name would erase everybody who gave none."""
    converse(log, "s")
    with pytest.raises(InvalidInput):
        log.store.erase_user(log.tenant, "")
    assert log.store.session(log.tenant, "s") is not None


def test_erasing_what_is_not_there_counts_nothing(log: Log) -> None:
    """Erasing twice is no error."""
    assert set(log.store.erase_session(log.tenant, "s").counts.values()) <= {0}
    assert set(log.store.erase_user(log.tenant, "alice").counts.values()) <= {0}


def test_a_writer_cannot_bring_a_session_back(log: Log) -> None:
    """What was under way when the session went gets a conflict."""
    converse(log, "s")
    under_way = log.batch("s", "late")
    log.store.erase_session(log.tenant, "s")
    with pytest.raises(Conflict):
        log.store.write(log.tenant, under_way).result()
    assert rows(log) == {"deletions": 1}


def test_a_session_may_begin_anew_under_its_old_name(log: Log) -> None:
    """With nothing of the old one in it, its idempotency keys included."""
    converse(log, "s")
    log.store.erase_session(log.tenant, "s")
    batch = log.say("s", "something else", idempotency_key="key of s")
    assert (batch.session.revision, log.store.events(log.tenant, "s")) == (1, list(batch.events))
