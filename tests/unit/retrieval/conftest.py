"""A library on a database of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctxmem.retrieval.library import Library
from ctxmem.stores.sql import SqlStore
from tests.databases import database
from tests.unit.retrieval.fakes import Hashing


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = SqlStore(database(tmp_path / "log.db"))
    yield opened
    opened.close()


@pytest.fixture
def library(store: SqlStore) -> Library:
    return Library(store.documents, Hashing())
