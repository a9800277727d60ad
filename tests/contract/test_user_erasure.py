"""Erasing a user: every table has rows of theirs and of another's; theirs go to the last word, the others stay."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Table, select

from ctxmem.checkpoint import Checkpoint, CheckpointKey, Packed, PendingWrite
from ctxmem.document import FORGET, Chunk, Document
from ctxmem.job import job
from ctxmem.memory import Source
from ctxmem.ports import Change, SlotName
from ctxmem.records import LedgerEntry
from ctxmem.stores import schema
from tests.contract.conftest import Log, request
from tests.contract.test_memories import added, memory
from tests.contract.test_store_erasure import sha

TABLES = {table.name: table for table in schema.metadata.sorted_tables}

OF_NOBODY = {
    "deletions": "the receipts of erasures, which name a user by the id that the erasure was asked for with",
    "shelves": "names and versions of the tenant's namespaces, which several users share and readers compare",
}
"""Tables whose rows belong to the tenant and not to a user, and why."""


def word(user: str) -> str:
    """What stands in all that is kept of a user, long enough to be deflated where it repeats."""
    return f"canary<{user}>"


def leave(log: Log, user: str) -> None:
    """Leave rows in every table, the user's word in each of them wherever a text or bytes can be."""
    said, session = word(user), f"session of {word(user)}"
    long = f"{said} {'and so on ' * 100}"
    tools = long.encode()
    asked = request(session, model=said, reason=said, policy=said, parts={said: 1}, usage={said: 1})
    log.say(session, long, user=user, request=asked, artifacts={sha(tools): tools, sha(b"all"): b"all"})
    event = log.say(session, said, user=user, idempotency_key=f"key {said}").events[0]
    log.fork(session, 0, 1, turn=1)
    log.book(session, LedgerEntry(session, 0, 1, event.id, "kept", reason=said, rendered=said.encode()))
    log.store.slots.keep(SlotName(log.tenant, session, event.id), "model", said.encode(), versions=1)
    threads(log, user)
    told(log, user)
    filed(log, user)
    jobs = [job("index", {"of": said}, session_id=session), job("index", {"of": said}, user_id=user, key=said)]
    log.store.jobs.put(log.tenant, jobs).result()


def threads(log: Log, user: str) -> None:
    """Checkpoints of a thread that is no session of the log."""
    said, key = word(user), CheckpointKey("c", f"thread of {word(user)}", word(user))
    body, long = Packed("s", said.encode()), Packed("s", f"{said} {'x' * 1000}".encode())
    made = Checkpoint(key, None, body, body, {said: "h"}, user_id=user)
    log.store.checkpoints.put(log.tenant, made, {"h": long}).result()
    log.store.checkpoints.put_writes(log.tenant, key, [PendingWrite("t", 0, "", said, body)]).result()


def told(log: Log, user: str) -> None:
    """Two memories, one of which was corrected."""
    said = word(user)
    source = Source("ev_1", 0, 1, f"session of {said}", "ab")
    one = memory(said, user=user, topic=said, speaker=said, metadata={said: said}, sources=(source,))
    log.store.memories.apply(log.tenant, added(one, user=user, key=said, digest=b"d", result=said.encode())).result()


def filed(log: Log, user: str) -> None:
    """A document with its chunk and vector, and a folder."""
    said, name = word(user), f"doc {word(user)}"
    document = Document("shared", name, said, "plain", said, sha(said.encode()), user_id=user, metadata={said: said})
    chunk = Chunk(f"chunk {said}", name, 0, 0, len(said), said, said)
    log.store.documents.put(log.tenant, [(document, [chunk])]).result()
    log.store.documents.claim(log.tenant, "shared", "embedder").result()
    log.store.documents.put_vectors(log.tenant, "shared", "embedder", {chunk.id: said.encode()}).result()
    log.store.folders.change(
        log.tenant, f"folder {said}", Change(put={said: said.encode()}, append=[said.encode()], user_id=user)
    ).result()


def texts(value: Any) -> Iterator[str]:
    """What can be read in a cell, bytes as they are and inflated."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes | memoryview):
        yield bytes(value).decode("utf-8", "replace")
        try:
            yield zlib.decompress(value).decode("utf-8", "replace")
        except zlib.error:
            return
    elif isinstance(value, dict | list):
        yield json.dumps(value, ensure_ascii=False)


def rows(log: Log, table: Table) -> list[tuple[Any, ...]]:
    """All rows of the tenant, in the order of their keys."""
    order = list(table.primary_key.columns)
    with log.store._reading() as connection:
        found = connection.execute(select(table).where(table.c.tenant == log.tenant).order_by(*order))
        return [tuple(row) for row in found]


def speaking(found: list[tuple[Any, ...]], of: str) -> list[tuple[Any, ...]]:
    """Rows in which a text can be read."""
    return [row for row in found if any(of in text for value in row for text in texts(value))]


@pytest.fixture
def filled(log: Log) -> Log:
    """A tenant of two users."""
    leave(log, "ann")
    leave(log, "bob")
    return log


@pytest.mark.parametrize("name", sorted(TABLES.keys() - OF_NOBODY.keys()))
def test_no_row_of_a_table_stays(filled: Log, name: str) -> None:
    """The table had some, in which the user's name or word stood; the other user's are as they were."""
    before = rows(filled, TABLES[name])
    theirs = speaking(before, "ann")
    assert theirs, f"nothing in {name} to erase: leave() must fill it, or OF_NOBODY say why it belongs to no user"
    receipt = filled.store.erase_user(filled.tenant, "ann")
    after = [row for row in rows(filled, TABLES[name]) if FORGET not in row]  # the job that it leaves for the disk
    assert after == [row for row in before if row not in theirs]
    assert speaking(after, "bob")
    assert receipt.counts[name] == len(theirs)


def test_nothing_of_the_user_can_be_read_anywhere(filled: Log) -> None:
    """In no column of any table; their id stands in the receipt alone, and their word not even there."""
    receipt = filled.store.erase_user(filled.tenant, "ann")
    left = {name: speaking(rows(filled, table), "ann") for name, table in TABLES.items()}
    assert [name for name, found in left.items() if found] == ["deletions"]
    assert not speaking(left["deletions"], word("ann"))
    assert receipt.scope == "user:ann"


@pytest.mark.parametrize("name", sorted(OF_NOBODY))
def test_a_table_of_nobody_holds_no_word_of_a_user(filled: Log, name: str) -> None:
    """Before the erasure or after it."""
    assert name in TABLES
    assert not speaking(rows(filled, TABLES[name]), word("ann"))
    filled.store.erase_user(filled.tenant, "ann")
    assert rows(filled, TABLES[name])


def test_scopes_that_were_opened_before_the_session_had_a_user_go_with_it(log: Log) -> None:
    """And what is only named alike stays."""
    for name, user in [("s", "ann"), ("s~f3", ""), ("s~f3~f1", ""), ("s~fine", ""), ("t~f3", ""), ("s~f4", "bob")]:
        log.say(name, "hi", user=user)
    assert log.store.erase_user(log.tenant, "ann").counts["sessions"] == 3
    assert [one.id for one in log.store.sessions(log.tenant)] == ["s~f4", "s~fine", "t~f3"]
