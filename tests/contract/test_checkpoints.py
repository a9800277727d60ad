"""Checkpoints: put and read whole, kept apart by tenant, values kept once and only as long as they are named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from sqlalchemy import func, select

from ctxmem.checkpoint import Asked, Checkpoint, CheckpointKey, Packed, PendingWrite
from ctxmem.stores.checkpoint_schema import checkpoint_values
from tests.contract.conftest import Log

VALUES = {"h1": Packed("json", b"1" * 3000), "h2": Packed("json", b"\0\xff")}


def made(id: str, thread: str = "t", parent: str | None = None, **rest: Any) -> Checkpoint:
    channels = rest.pop("channels", {"a": "h1"})
    packed = Packed("json", id.encode())
    return Checkpoint(CheckpointKey(id, thread), parent, packed, packed, channels, **rest)


def kept(log: Log, *checkpoints: Checkpoint) -> None:
    for one in checkpoints:
        named = {sha256: VALUES[sha256] for sha256 in one.channels.values()}
        log.store.checkpoints.put(log.tenant, one, named).result()


def values(log: Log) -> int:
    with log.store._reading() as connection:
        table = checkpoint_values
        return connection.scalar(select(func.count()).select_from(table).where(table.c.tenant == log.tenant)) or 0


def test_a_checkpoint_comes_back_whole(log: Log) -> None:
    """With the writes in a graph's order, one that was written again only where its place is negative."""
    one = made("c1", channels={"a": "h1", "b": "h2"}, run_id="r", user_id="u", needs=("d",))
    kept(log, one)
    writes = [PendingWrite("t2", 0, "~b", "a", VALUES["h2"]), PendingWrite("t1", -1, "~a", "__error__", VALUES["h2"])]
    log.store.checkpoints.put_writes(log.tenant, one.key, writes).result()
    again = [replace(write, value=VALUES["h1"]) for write in writes]
    log.store.checkpoints.put_writes(log.tenant, one.key, again).result()
    saved = log.store.checkpoints.get(log.tenant, "t", "")
    assert saved is not None
    assert (saved.checkpoint, saved.values) == (one, VALUES)
    assert saved.writes == (again[1], writes[0])
    assert log.store.checkpoints.get("another", "t", "") is None
    assert log.store.checkpoints.find("another", Asked(), limit=9) == []


def test_they_are_found_newest_first_page_by_page(log: Log) -> None:
    kept(log, *(made(f"c{n}", thread) for n in range(3) for thread in ("t", "u")))
    first = log.store.checkpoints.find(log.tenant, Asked(), limit=4)
    rest = log.store.checkpoints.find(log.tenant, Asked(after=first[-1].key), limit=4)
    assert [one.key[:2] for one in (*first, *rest)] == [(f"c{n}", thread) for n in (2, 1, 0) for thread in ("u", "t")]
    before = log.store.checkpoints.find(log.tenant, Asked("t", "", before="c2"), limit=4)
    assert [one.key.id for one in before] == ["c1", "c0"]


def test_a_value_is_kept_once_and_goes_with_the_last_that_names_it(log: Log) -> None:
    """By run, and by age."""
    kept(log, made("c1", run_id="r1"), made("c2", parent="c1", run_id="r2"))
    kept(log, made("c3", parent="c2", run_id="r3", channels={"a": "h2"}))
    assert values(log) == 2
    log.store.checkpoints.delete_runs(log.tenant, ["r1", "nobody's"]).result()
    assert [one.key.id for one in log.store.checkpoints.find(log.tenant, Asked(), limit=9)] == ["c3", "c2"]
    assert values(log) == 2
    log.store.checkpoints.prune(log.tenant, ["t", "t"]).result()
    assert [one.key.id for one in log.store.checkpoints.find(log.tenant, Asked(), limit=9)] == ["c3"]
    assert values(log) == 1


def test_what_the_newest_is_put_together_from_is_not_pruned(log: Log) -> None:
    """Back to the checkpoint that holds the channel, along the parents, not along time."""
    kept(log, made("c1"), made("c2", channels={"d": "h2"}), made("c3", parent="c1"))
    kept(log, made("c4", parent="c2", needs=("d",)), made("c5", parent="c4", needs=("d",)))
    log.store.checkpoints.prune(log.tenant, ["t"]).result()
    assert [one.key.id for one in log.store.checkpoints.find(log.tenant, Asked(), limit=9)] == ["c5", "c4", "c2"]


def test_a_copy_leaves_the_source_and_what_the_target_has(log: Log) -> None:
    kept(log, made("c1"), made("c2", parent="c1"), replace(made("c2", "u"), user_id="own"))
    log.store.checkpoints.copy(log.tenant, "t", "u").result()
    assert [one.user_id for one in log.store.checkpoints.find(log.tenant, Asked("u"), limit=9)] == ["own", ""]
    log.store.checkpoints.delete(log.tenant, ["t"]).result()
    copied = log.store.checkpoints.get(log.tenant, "u", "", "c1")
    assert copied is not None
    assert copied.values == {"h1": VALUES["h1"]}


def test_writers_of_one_thread_lose_nothing(log: Log) -> None:
    """Puts beside prunes: every checkpoint that is there has its values."""

    def work(n: int) -> None:
        kept(log, made(f"c{n:02}", channels={"a": f"h{n % 2 + 1}"}))
        if n % 3 == 0:
            log.store.checkpoints.prune(log.tenant, ["t"]).result()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(24)))
    for one in log.store.checkpoints.find(log.tenant, Asked(), limit=99):
        saved = log.store.checkpoints.get(log.tenant, "t", "", one.key.id)
        assert saved is not None
        assert set(saved.values) == set(one.channels.values())
