"""Folders: writes are whole, in order, compared with a revision, seen by one tenant, and gone with their user."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctxmem.errors import Conflict
from ctxmem.ports import Change, Folder
from ctxmem.stores.sql import SqlStore
from tests.databases import database


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    sqlite = request.param == "sqlite"
    opened = SqlStore(database(tmp_path / "log.db") if sqlite else request.getfixturevalue("postgres").database())
    yield opened
    opened.close()


def test_what_is_put_is_there_in_order_of_keys(store: SqlStore) -> None:
    """By code point, whatever the database thinks of case and accents."""
    keys = ["b", "B", "é", "a/b", "a", "%", "_"]
    assert store.folders.change("t", "f", Change(put={key: key.encode() for key in keys})).result() == 1
    assert list(store.folders.folder("t", "f").items) == sorted(keys)
    assert store.folders.folder("t", "f", key="B").items == {"B": b"B"}
    assert list(store.folders.folder("t", "f", prefix="a").items) == ["a", "a/b"]
    assert list(store.folders.folder("t", "f", prefix="%").items) == ["%"]
    assert store.folders.folder("u", "f") == Folder()


def test_batches_keep_their_order_and_are_never_mixed(store: SqlStore) -> None:
    """Eight writers at once: each batch stands together."""

    def add(n: int) -> None:
        store.folders.change("t", "f", Change(append=[b"%d-%d" % (n, i) for i in range(5)])).result()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    said = [value.decode().split("-") for value in store.folders.folder("t", "f").items.values()]
    assert len(said) == 200
    for at in range(0, 200, 5):
        assert [i for _, i in said[at : at + 5]] == list("01234")
        assert len({n for n, _ in said[at : at + 5]}) == 1


def test_a_writer_who_read_something_older_is_refused(store: SqlStore) -> None:
    """And nothing of the write is there."""
    with pytest.raises(Conflict):
        store.folders.change("t", "f", Change(put={"a": b"1"}, expected=3)).result()
    revision = store.folders.change("t", "f", Change(put={"a": b"1"}, expected=0)).result()
    for stale in (0, revision + 1):
        with pytest.raises(Conflict):
            store.folders.change("t", "f", Change(put={"a": b"2"}, delete=["a"], clear=True, expected=stale)).result()
    assert store.folders.folder("t", "f") == Folder(revision, {"a": b"1"})
    store.folders.change("t", "f", Change(put={"b": b"2"}, delete=["a"], expected=revision)).result()
    assert store.folders.folder("t", "f", last=1).items == {"b": b"2"}


def test_names_are_found_by_how_they_begin(store: SqlStore) -> None:
    """Wildcards of SQL stand for themselves."""
    for name in ("x/a", "x/b", "X/c", "x%/d", "y"):
        store.folders.change("t", name, Change(user_id="u" if name == "x/b" else "")).result()
    assert store.folders.names("t", prefix="x/") == ["x/a", "x/b"]
    assert store.folders.names("t", prefix="x%") == ["x%/d"]
    assert store.folders.names("t", user_id="u") == ["x/b"]


def test_folders_go_with_their_user(store: SqlStore) -> None:
    """The receipt counts the rows; other users' and tenants' stay."""
    for tenant, name, user in (("t", "a", "u"), ("t", "b", "v"), ("other", "a", "u")):
        store.folders.change(tenant, name, Change(append=[b"1", b"2"], user_id=user)).result()
    erasure = store.erase_user("t", "u")
    assert erasure.counts["folders"] == 1
    assert erasure.counts["folder_items"] == 2
    assert store.folders.names("t") == ["b"]
    assert len(store.folders.folder("other", "a").items) == 2
