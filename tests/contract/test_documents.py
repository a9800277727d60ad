"""Documents, chunks and vectors over both databases."""

from __future__ import annotations

import pytest

from ctxmem.document import Chunk, Document, Filter, Shelf
from ctxmem.errors import Conflict, InvalidInput
from ctxmem.ids import new_id
from ctxmem.job import job
from ctxmem.stores.sql import SqlStore


@pytest.fixture
def tenant() -> str:
    """A tenant of the test's own: the database is shared."""
    return new_id("tenant")


def piece(name: str, document_id: str = "d", seq: int = 0) -> Chunk:
    return Chunk(f"ck_{name}", document_id, seq, 0, len(name), name, "lead")


def document(id: str = "d", namespace: str = "n", **rest: object) -> Document:
    return Document(namespace, id, "text of it", sha256="x", **rest)  # type: ignore[arg-type]


def test_a_document_comes_back_as_it_was_written(store: SqlStore, tenant: str) -> None:
    written = document(title="Tü", user_id="u", session_id="s", metadata={"a": [1, {"b": None}]}, at=12.5)
    store.documents.put(tenant, [(written, [piece("one"), piece("two", seq=1)])]).result()
    assert store.documents.document(tenant, "n", "d") == written
    assert store.documents.documents(tenant, "n", ["d", "gone"])["d"].metadata == written.metadata
    assert sorted(c.text for c in store.documents.chunks(tenant, "n", ["ck_one", "ck_two", "gone"])) == ["one", "two"]
    assert store.documents.document(f"other-{tenant}", "n", "d") is None
    assert store.documents.document(tenant, "elsewhere", "d") is None
    assert store.documents.shelf(f"other-{tenant}", "n") is None


def test_chunks_that_stay_keep_their_vectors(store: SqlStore, tenant: str) -> None:
    documents = store.documents
    documents.put(tenant, [(document(), [piece("one"), piece("two", seq=1)])]).result()
    documents.claim(tenant, "n", "f").result()
    assert documents.put_vectors(tenant, "n", "f", {"ck_one": b"1", "ck_two": b"2", "ck_gone": b"3"}).result() == 2
    before = documents.shelf(tenant, "n")
    documents.put(tenant, [(document(), [piece("new"), piece("two", seq=1)])]).result()
    after = documents.shelf(tenant, "n")
    assert before is not None and after is not None and after.version > before.version
    assert documents.outline(tenant, "n") == {"ck_new": ("d", ""), "ck_two": ("d", "f")}
    assert documents.vectors(tenant, "n", ["ck_new", "ck_two"], "f") == {"ck_two": b"2"}
    assert [c.id for c in documents.pending(tenant, "n", "f", limit=9)] == ["ck_new"]


def test_a_namespace_belongs_to_one_embedder(store: SqlStore, tenant: str) -> None:
    documents = store.documents
    documents.put(tenant, [(document(), [piece("one")])]).result()
    assert documents.claim(tenant, "n", "old").result().fingerprint == "old"
    assert documents.claim(tenant, "n", "new").result().fingerprint == "old"
    with pytest.raises(Conflict):
        documents.put_vectors(tenant, "n", "new", {"ck_one": b"1"}).result()
    assert documents.claim(tenant, "n", "new", replace=True).result().fingerprint == "new"
    assert [c.id for c in documents.pending(tenant, "n", "new", limit=9)] == ["ck_one"]


def test_deleting_takes_chunks_and_vectors(store: SqlStore, tenant: str) -> None:
    documents = store.documents
    documents.put(tenant, [(document(), [piece("one")]), (document("e"), [piece("two", "e")])]).result()
    assert documents.delete(tenant, "n", ["d", "gone"]).result() == 1
    assert documents.outline(tenant, "n") == {"ck_two": ("e", "")}
    assert list(documents.documents(tenant, "n")) == ["e"]


def test_filters(store: SqlStore, tenant: str) -> None:
    documents = store.documents
    rows = [document("a", user_id="u", at=1.0, metadata={"k": 1}), document("b", session_id="s", at=2.0)]
    documents.put(tenant, [(row, []) for row in rows]).result()
    assert documents.matching(tenant, "n", Filter(user_id="v")) == {"b"}
    assert documents.matching(tenant, "n", Filter(session_id="s")) == {"b"}
    assert documents.matching(tenant, "n", Filter(until=2.0)) == {"a"}
    assert documents.matching(tenant, "n", Filter(metadata={"k": 1})) == {"a"}


def test_a_job_commits_with_its_documents_or_not_at_all(store: SqlStore, tenant: str) -> None:
    first = job("embed", {"namespace": "n"})
    store.documents.put(tenant, [(document(), [])], jobs=[first]).result()
    assert store.jobs.job(tenant, first.id) is not None
    second = job("embed", {"namespace": "n"})
    with pytest.raises(InvalidInput):
        store.documents.put(tenant, [(document("e", metadata={"bad": object()}), [])], jobs=[second]).result()
    assert store.jobs.job(tenant, second.id) is None
    assert store.documents.document(tenant, "n", "e") is None


def test_erasure_takes_what_belongs_to_a_user_or_session(store: SqlStore, tenant: str) -> None:
    documents = store.documents
    rows = [document("a", user_id="u"), document("b", session_id="s"), document("c"), document("a", "m", user_id="u")]
    for row in rows:
        documents.put(tenant, [(row, [piece(f"{row.namespace}{row.id}", row.id)])]).result()
    documents.put(f"other-{tenant}", [(document("a", user_id="u"), [])]).result()
    before = documents.shelf(tenant, "n")
    counts = store.erase_user(tenant, "u").counts
    assert (counts["documents"], counts["chunks"]) == (2, 2)
    store.erase_session(tenant, "s")
    assert list(documents.outline(tenant, "n")) == ["ck_nc"]
    assert documents.outline(tenant, "m") == {}
    assert before is not None and documents.shelf(tenant, "n") != Shelf("n", before.version)
    assert documents.document(f"other-{tenant}", "n", "a") is not None
