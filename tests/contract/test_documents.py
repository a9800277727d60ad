"""Documents, chunks and vectors over both databases."""

from __future__ import annotations

import pytest

from ctxmem.document import Chunk, Document, Filter, Shelf
from ctxmem.errors import Conflict, InvalidInput
from ctxmem.job import job
from ctxmem.stores.sql import SqlStore


def piece(name: str, document_id: str = "d", seq: int = 0) -> Chunk:
    return Chunk(f"ck_{name}", document_id, seq, 0, len(name), name, "lead")


def document(id: str = "d", namespace: str = "n", **rest: object) -> Document:
    return Document(namespace, id, "text of it", sha256="x", **rest)  # type: ignore[arg-type]


def test_a_document_comes_back_as_it_was_written(store: SqlStore) -> None:
    written = document(title="T\u00fc", user_id="u", session_id="s", metadata={"a": [1, {"b": None}]}, at=12.5)
    store.documents.put("t", [(written, [piece("one"), piece("two", seq=1)])]).result()
    assert store.documents.document("t", "n", "d") == written
    assert store.documents.heads("t", "n", ["d", "gone"])["d"].metadata == written.metadata
    assert sorted(c.text for c in store.documents.chunks("t", "n", ["ck_one", "ck_two", "gone"])) == ["one", "two"]
    assert store.documents.document("other", "n", "d") is None
    assert store.documents.document("t", "other", "d") is None
    assert store.documents.shelves("other") == []


def test_chunks_that_stay_keep_their_vectors(store: SqlStore) -> None:
    documents = store.documents
    documents.put("t", [(document(), [piece("one"), piece("two", seq=1)])]).result()
    documents.claim("t", "n", "f").result()
    assert documents.put_vectors("t", "n", "f", {"ck_one": b"1", "ck_two": b"2", "ck_gone": b"3"}).result() == 2
    before = documents.shelf("t", "n")
    documents.put("t", [(document(), [piece("new"), piece("two", seq=1)])]).result()
    after = documents.shelf("t", "n")
    assert before is not None and after is not None and after.version > before.version
    assert documents.outline("t", "n") == {"ck_new": ("d", ""), "ck_two": ("d", "f")}
    assert documents.vectors("t", "n", ["ck_new", "ck_two"], "f") == {"ck_two": b"2"}
    assert [c.id for c in documents.pending("t", "n", "f", limit=9)] == ["ck_new"]


def test_a_namespace_belongs_to_one_embedder(store: SqlStore) -> None:
    documents = store.documents
    documents.put("t", [(document(), [piece("one")])]).result()
    assert documents.claim("t", "n", "old").result().fingerprint == "old"
    assert documents.claim("t", "n", "new").result().fingerprint == "old"
    with pytest.raises(Conflict):
        documents.put_vectors("t", "n", "new", {"ck_one": b"1"}).result()
    assert documents.claim("t", "n", "new", replace=True).result().fingerprint == "new"
    assert [c.id for c in documents.pending("t", "n", "new", limit=9)] == ["ck_one"]


def test_deleting_takes_chunks_and_vectors(store: SqlStore) -> None:
    documents = store.documents
    documents.put("t", [(document(), [piece("one")]), (document("e"), [piece("two", "e")])]).result()
    assert documents.delete("t", "n", ["d", "gone"]).result() == 1
    assert documents.outline("t", "n") == {"ck_two": ("e", "")}
    assert [one.id for one in documents.documents("t", "n")] == ["e"]


def test_filters(store: SqlStore) -> None:
    documents = store.documents
    rows = [document("a", user_id="u", at=1.0, metadata={"k": 1}), document("b", session_id="s", at=2.0)]
    documents.put("t", [(row, []) for row in rows]).result()
    assert documents.matching("t", "n", Filter(user_id="v")) == {"b"}
    assert documents.matching("t", "n", Filter(session_id="s")) == {"b"}
    assert documents.matching("t", "n", Filter(until=2.0)) == {"a"}
    assert documents.matching("t", "n", Filter(metadata={"k": 1})) == {"a"}


def test_a_job_commits_with_its_documents_or_not_at_all(store: SqlStore) -> None:
    first = job("embed", {"namespace": "n"})
    store.documents.put("t", [(document(), [])], jobs=[first]).result()
    assert store.jobs.job("t", first.id) is not None
    second = job("embed", {"namespace": "n"})
    with pytest.raises(InvalidInput):
        store.documents.put("t", [(document("e", metadata={"bad": object()}), [])], jobs=[second]).result()
    assert store.jobs.job("t", second.id) is None
    assert store.documents.document("t", "n", "e") is None


def test_erasure_takes_what_belongs_to_a_user_or_session(store: SqlStore) -> None:
    documents = store.documents
    rows = [document("a", user_id="u"), document("b", session_id="s"), document("c"), document("a", "m", user_id="u")]
    for row in rows:
        documents.put("t", [(row, [piece(f"{row.namespace}{row.id}", row.id)])]).result()
    documents.put("other", [(document("a", user_id="u"), [])]).result()
    before = documents.shelf("t", "n")
    counts = store.erase_user("t", "u").counts
    assert (counts["documents"], counts["chunks"]) == (2, 2)
    store.erase_session("t", "s")
    assert list(documents.outline("t", "n")) == ["ck_nc"]
    assert documents.outline("t", "m") == {}
    assert before is not None and documents.shelf("t", "n") != Shelf("n", before.version)
    assert documents.document("other", "n", "a") is not None
