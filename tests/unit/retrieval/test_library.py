from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxmem.errors import Conflict, InvalidInput, Unavailable
from ctxmem.retrieval.library import Library, Query, Source
from ctxmem.stores.sql import SqlStore
from tests.unit.retrieval.fakes import Hashing, found

WORDS = ["harbour", "ledger", "tram", "kitten", "vault", "garden", "opera", "glacier"]


def long(word: str, pieces: int = 5) -> str:
    return "\n\n".join(f"{word} number {n} " + f"filler{n} " * 90 for n in range(pieces))


class TestIngest:
    def test_what_is_written_is_found_at_once(self, library: Library) -> None:
        done = library.ingest("t", "n", [Source("The tram stops at nine.", id="tram"), Source("A vault.", id="vault")])
        assert (done.ids, done.written, done.chunks, done.embedded) == (("tram", "vault"), 2, 2, 2)
        result = library.search("t", Query("when does the tram stop?", "n", k=1))
        assert [(f.document_id, f.text, f.start, f.end) for f in result.found] == [
            ("tram", "The tram stops at nine.", 0, 23)
        ]
        assert (result.exact, result.coverage, result.degraded) == (True, 1.0, ())

    def test_ingesting_again_changes_nothing_and_embeds_nothing(self, store: SqlStore) -> None:
        embedder = Hashing()
        library = Library(store.documents, embedder)
        sources = [Source(long(word), id=word) for word in WORDS]
        library.ingest("t", "n", sources)
        seen, outline = len(embedder.seen), store.documents.outline("t", "n")
        again = library.ingest("t", "n", sources)
        assert (again.written, again.embedded, len(embedder.seen)) == (0, 0, seen)
        assert store.documents.outline("t", "n") == outline

    def test_an_update_embeds_only_what_changed(self, store: SqlStore) -> None:
        embedder = Hashing()
        library = Library(store.documents, embedder)
        library.ingest("t", "n", [Source(long("ledger", 6), id="a")])
        before = len(embedder.seen)
        changed = long("ledger", 6).replace("ledger number 3", "glacier number 3")
        library.ingest("t", "n", [Source(changed, id="a", metadata={"v": 2})])
        assert 1 <= len(embedder.seen) - before <= 2
        assert found(library, "glacier", mode="words") == ["a"]
        assert library.search("t", Query("glacier", "n")).found[0].metadata == {"v": 2}

    def test_a_deleted_document_is_gone_at_once(self, library: Library) -> None:
        library.ingest("t", "n", [Source("The tram.", id="a"), Source("The opera.", id="b")])
        assert library.delete("t", "n", ["a", "a", "gone"]) == 1
        assert found(library, "tram") == ["b"]
        assert library.delete("t", "n", ["a"]) == 0

    def test_ids_follow_from_name_or_content(self, library: Library) -> None:
        one = library.ingest("t", "n", [Source("Same words.")]).ids
        assert library.ingest("t", "n", [Source("Same words.")]).ids == one
        assert library.ingest("t", "n", [Source("Same words.", name="a.txt")]).ids == ("a.txt",)

    @pytest.mark.parametrize(
        "sources",
        [
            [Source("a", id="x"), Source("b", id="x")],
            [Source("good", id="x"), Source(b"\x00\x01", id="y", name="y.txt")],
            [Source("good", id="x"), Source("{", id="y", kind="json")],
            [Source("good", id="x"), Source("b", id="y" * 600)],
            [Source("good", id="x"), Source("b", id="y", metadata={"bad": object()})],
            [Source("good", id="x"), Source("b", id="y", kind="docx")],
            [Source("good", id="x"), Source("b", id="y", metadata={"bad": float("nan")})],
            [Source("good", id="x"), Source("b", id="y", at=float("nan"))],
            [Source("good", id="x"), Source("b", id="y", at=float("inf"))],
            [Source("good", id="x"), Source("b", id="y", at="yesterday")],
            [Source("good", id="x"), Source("b", id=5)],
            [Source("good", id="x"), Source(None, id="y")],
            Source("good", id="x"),
        ],
    )
    def test_a_bad_document_writes_none(self, library: Library, store: SqlStore, sources: list[Source]) -> None:
        with pytest.raises(InvalidInput):
            library.ingest("t", "n", sources)
        assert store.documents.documents("t", "n") == {}

    @pytest.mark.parametrize("text", ["", "   \n ", "\u2003"])
    def test_an_empty_document_is_kept_and_found_by_nothing(self, library: Library, store: SqlStore, text: str) -> None:
        library.ingest("t", "n", [Source(text, id="empty"), Source("The tram.", id="full")])
        assert found(library, "tram") == ["full"]
        assert list(store.documents.documents("t", "n")) == ["empty", "full"]

    def test_embedding_goes_on_where_it_failed(self, store: SqlStore) -> None:
        sources = [Source(long(word, 20), id=word) for word in WORDS]
        with pytest.raises(Unavailable):
            Library(store.documents, Hashing(fails_after=100)).ingest("t", "n", sources)
        steps: list[tuple[int, int]] = []
        embedder = Hashing()
        library = Library(store.documents, embedder)
        half = library.search("t", Query("tram", "n"))
        assert half.degraded == ("embedding",) and 0 < half.coverage < 1 and not half.exact
        assert half.found[0].document_id == "tram"
        library.ingest("t", "n", sources, progress=lambda done, all: steps.append((done, all)))
        assert library.search("t", Query("tram", "n")).coverage == 1
        assert steps[-1][0] == steps[-1][1] == len(embedder.seen) < len(store.documents.outline("t", "n"))

    def test_a_job_is_written_down_with_the_documents(self, library: Library, store: SqlStore) -> None:
        done = library.ingest("t", "n", [Source("The tram.", id="a")], later=True)
        assert done.embedded == 0 and done.job_id is not None
        job = store.jobs.job("t", done.job_id)
        assert job is not None and (job.kind, job.payload) == ("embed", {"namespace": "n"})
        assert found(library, "tram") == ["a"]
        assert library.embed("t", "n") == 1

    def test_vectors_that_are_not_finite_are_refused(self, store: SqlStore) -> None:
        with pytest.raises(InvalidInput, match="finite"):
            Library(store.documents, Hashing(bad=np.nan)).ingest("t", "n", [Source("The tram.", id="a")])
        assert found(Library(store.documents, Hashing()), "tram") == ["a"]

    def test_without_an_embedder_words_are_enough(self, store: SqlStore) -> None:
        library = Library(store.documents, None)
        library.ingest("t", "n", [Source("The tram.", id="a")])
        assert found(library, "tram") == ["a"]


class Misshapen(Hashing):
    """An embedder whose vectors are not what it says."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__("misshapen")
        self._change = change

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Any:
        return self._change(super().embed(texts, query=query))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: rows[:, :-1],
        lambda rows: np.hstack([rows, rows]),
        lambda rows: rows.ravel(),
        lambda rows: [["x"] * 32 for _ in rows],
    ],
)
def test_an_embedder_that_gives_other_shapes_is_named(store: SqlStore, change: Callable[[Any], Any]) -> None:
    """Nothing of it is kept; the documents are found by their words."""
    library = Library(store.documents, Misshapen(change))
    with pytest.raises(InvalidInput, match="'misshapen' gave"):
        library.ingest("t", "n", [Source("The tram.", id="a")])
    assert found(library, "tram", mode="words") == ["a"]
    assert library._left("t", "n") == 1


class TestEmbedderChanged:
    def test_search_and_ingest_say_so_and_reembedding_repairs(self, store: SqlStore) -> None:
        Library(store.documents, Hashing("old")).ingest("t", "n", [Source("The tram.", id="a")])
        library = Library(store.documents, Hashing("new"))
        for attempt in (lambda: found(library, "tram"), lambda: library.ingest("t", "n", [Source("x", id="b")])):
            with pytest.raises(Conflict, match=r"'old'.*'new'.*re-embed"):
                attempt()
        assert found(library, "tram", mode="words") == ["a"]
        assert library.reembed("t", "n") == 1
        assert found(library, "tram", mode="dense") == ["a"]
        with pytest.raises(Conflict):
            found(Library(store.documents, Hashing("old")), "tram")

    def test_a_writer_that_lost_the_namespace_changes_nothing(self, store: SqlStore) -> None:
        old, new = Library(store.documents, Hashing("old")), Library(store.documents, Hashing("new"))
        done = old.ingest("t", "n", [Source("The tram.", id="a")], later=True)
        assert done.job_id
        new.reembed("t", "n")
        with pytest.raises(Conflict):
            old.embed("t", "n")
        assert new.search("t", Query("tram", "n")).coverage == 1


class TestErasure:
    def test_a_user_takes_their_documents_with_them(self, library: Library, store: SqlStore, tmp_path: Path) -> None:
        secret = "swordfish" * 20
        library.ingest("t", "n", [Source(f"tram {secret}", id="a", user_id="ada"), Source("tram", id="b")])
        assert set(found(library, "tram")) == {"a", "b"}
        receipt = store.erase_user("t", "ada")
        assert receipt.counts["documents"] == 1 and receipt.counts["chunks"] == 1
        assert found(library, "tram") == ["b"]
        store.close()
        assert not any(b"swordfish" in path.read_bytes() for path in tmp_path.iterdir())

    def test_a_session_takes_its_documents_with_it(self, library: Library, store: SqlStore) -> None:
        library.ingest("t", "n", [Source("tram", id="a", session_id="s"), Source("tram two", id="b")])
        store.erase_session("t", "s")
        assert found(library, "tram") == ["b"]


def _ingest_and_die(folder: str, after: int) -> None:
    """In a process of its own: embed until so many vectors are on the disk, then die at once."""
    store = SqlStore(f"sqlite:///{folder}/log.db")

    def progress(done: int, whole: int) -> None:
        if done >= after:
            os.kill(os.getpid(), 9)

    Library(store.documents, Hashing()).ingest("t", "n", _corpus(), progress=progress)


def _corpus() -> list[Source]:
    return [Source(long(word, 30), id=word) for word in WORDS]


def test_a_killed_ingest_goes_on_without_loss_or_duplicates(tmp_path: Path) -> None:
    whole = SqlStore(f"sqlite:///{tmp_path}/whole.db")
    Library(whole.documents, Hashing()).ingest("t", "n", _corpus())
    for after in (64, 128):
        process = multiprocessing.get_context("spawn").Process(target=_ingest_and_die, args=(str(tmp_path), after))
        process.start()
        process.join(60)
        assert process.exitcode == -9
    store = SqlStore(f"sqlite:///{tmp_path}/log.db")
    embedder = Hashing()
    Library(store.documents, embedder).ingest("t", "n", _corpus())
    assert 0 < len(embedder.seen) == len(set(embedder.seen)) < len(whole.documents.outline("t", "n"))
    assert store.documents.outline("t", "n") == whole.documents.outline("t", "n")
    ids = list(whole.documents.outline("t", "n"))
    assert store.documents.vectors("t", "n", ids, "hashing-1") == whole.documents.vectors("t", "n", ids, "hashing-1")
    whole.close()
    store.close()
