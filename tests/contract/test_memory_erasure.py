"""Memories go with their user, and with the sessions they stand on; the receipt counts them."""

from __future__ import annotations

from pathlib import Path

from ctxmem.memory import Scope, Source
from ctxmem.stores.sql import SqlStore
from tests.contract.conftest import Log
from tests.contract.test_memories import added, memory
from tests.contract.test_store_erasure import rows


def test_no_row_of_the_user_stays(log: Log) -> None:
    """Neither memories nor sources, history, version or keys."""
    one, two = memory("a"), memory("b")
    log.store.memories.apply(log.tenant, added(one, two, key="k", digest=b"d", result=b"{}")).result()
    before = rows(log)
    assert set(before) == {"memories", "memory_sources", "memory_changes", "memory_heads", "memory_keys"}
    erasure = log.store.erase_user(log.tenant, "alice")
    assert rows(log) == {"deletions": 1}
    assert {table: count for table, count in erasure.counts.items() if count} == before


def test_other_users_keep_theirs(log: Log) -> None:
    """All of them."""
    theirs = memory("b", user="bob")
    log.store.memories.apply(log.tenant, added(memory("a"))).result()
    log.store.memories.apply(log.tenant, added(theirs, user="bob")).result()
    log.store.erase_user(log.tenant, "alice")
    assert log.store.memories.scoped(log.tenant, Scope()) == [theirs]


def test_a_session_takes_its_own_memories(log: Log) -> None:
    """And those that stand on nothing else; one that was also said elsewhere stands on that alone."""
    log.say("gone", "hi", user="alice")
    elsewhere = Source("ev_2", 0, 1, "stays", "cd")
    own = memory("a", session_id="gone", sources=())
    bare = memory("b", sources=(Source("ev_1", 0, 1, "gone", "ab"),))
    both = memory("c", sources=(Source("ev_1", 0, 1, "gone", "ab"), elsewhere))
    told = memory("d", sources=())
    log.store.memories.apply(log.tenant, added(own, bare, both, told)).result()
    erasure = log.store.erase_session(log.tenant, "gone")
    left = {one.text: one.sources for one in log.store.memories.scoped(log.tenant, Scope("alice"))}
    assert left == {"c": (elsewhere,), "d": ()}
    assert erasure.counts["memories"] == 2
    assert log.store.memories.changes(log.tenant, own.id) == []


def test_erased_words_are_not_in_the_files(tmp_path: Path) -> None:
    """Of SQLite: neither in the database nor in its write-ahead log."""
    store = SqlStore(f"sqlite:///{tmp_path}/log.db")
    secret = "xylophone-7315"
    made = memory(f"The word is {secret}", metadata={"also": secret}, topic=secret)
    store.memories.apply("t", added(made, key=secret, digest=b"d", result=b"{}")).result()
    assert _holding(tmp_path, secret)
    store.erase_user("t", "alice")
    assert not _holding(tmp_path, secret)
    store.close()
    assert not _holding(tmp_path, secret)


def _holding(folder: Path, word: str) -> list[str]:
    return [path.name for path in folder.iterdir() if word.encode() in path.read_bytes()]
