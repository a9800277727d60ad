"""Hot states: bounded, and never wrong."""

from __future__ import annotations

from pathlib import Path

from ctxmem.chat import parse
from ctxmem.compressors.lexical import Lexical
from ctxmem.manager import ContextManager
from ctxmem.manager.engine import Engine
from ctxmem.manager.hot import HotStates
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.sql import SqlStore
from tests.databases import database
from tests.unit.manager.conftest import word_counter
from tests.unit.manager.test_arrive import assistant, user


def manager(path: Path, cache: MemoryCache, room: int) -> ContextManager:
    engine = Engine(SqlStore(database(path)), cache, word_counter, Lexical())
    object.__setattr__(engine, "hot", HotStates(engine.store, cache, room=room))
    return ContextManager(engine)


def test_a_process_with_little_room_renders_the_same(tmp_path: Path):
    """Twenty sessions in turn with room for two: from the shared cache, and with that flushed from the store alone."""
    sent = {}
    for name, room in (("roomy", 1 << 20), ("tight", 8000), ("flushed", 8000)):
        cache = MemoryCache()
        cm = manager(tmp_path / f"{name}.db", cache, room)
        for turn in range(6):
            for i in range(20):
                if name == "flushed":
                    cache.drop("default", [f"live:s{i}:0"])
                cm.prepare(f"s{i}", [user(f"{i} says {turn} " + "word " * 20)], 150)
                cm.record(f"s{i}", f"answer {turn}")
        sent[name] = [[m.raw for m in cm.prepare(f"s{i}", [user("last")], 150).render()] for i in range(20)]
        cm.close()
    assert sent["roomy"] == sent["tight"] == sent["flushed"]


def test_a_state_that_is_out_of_date_loses_and_is_loaded_again(tmp_path: Path):
    """Two processes on one session: neither loses a message, and both see the other's."""
    one, two = (manager(tmp_path / "log.db", MemoryCache(), 1 << 20) for _ in range(2))
    for i in range(4):
        for name, cm in (("one", one), ("two", two)):
            cm.prepare("s", [user(f"{name} {i}")], 500)
            cm.record("s", parse(assistant(f"re {name} {i}")))
    said = [m["content"] for m in one.prepare("s", [user("last")], 500).messages()]
    turns = [f"{name} {i}" for i in range(4) for name in ("one", "two")]
    assert said == [text for turn in turns for text in (turn, f"re {turn}")] + ["last"]
    one.close()
    two.close()
