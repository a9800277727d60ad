"""A manager over a real SQLite file, with a counter whose sums can be done in the head."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctxmem.compressors.lexical import Lexical
from ctxmem.manager import ContextManager
from ctxmem.manager.engine import Engine
from ctxmem.ports import Counter
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.sql import SqlStore
from ctxmem.testing import WordCounter
from tests.databases import database


def word_counter(model: str) -> Counter:
    """One word is one token, for any model."""
    del model
    return WordCounter()


def open_manager(path: Path, **options: str) -> ContextManager:
    """A manager as a fresh process would open it: nothing hot."""
    return ContextManager(Engine(SqlStore(database(path)), MemoryCache(), word_counter, Lexical()), **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def cm(path: Path) -> Iterator[ContextManager]:
    manager = open_manager(path)
    yield manager
    manager.close()
