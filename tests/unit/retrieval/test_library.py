from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxmem.document import Filter
from ctxmem.errors import Conflict, InvalidInput, Unavailable
from ctxmem.retrieval.library import Library, Query, Source
from ctxmem.retrieval.query import within
from ctxmem.stores.sql import SqlStore
from ctxmem.tokens.estimate import Estimate

WORDS = ["harbour", "ledger", "tram", "kitten", "vault", "garden", "opera", "glacier"]


class Hashing:
    """An embedder of 32 dimensions: words by their hash. Counts what it embeds, and may be told to fail."""

    dimensions = 32

    def __init__(self, name: str = "hashing-1", *, fails_after: int | None = None, bad: float | None = None) -> None:
        self.name = name
        self.seen: list[str] = []
        self._fails_after, self._bad = fails_after, bad

    def embed(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray[Any, np.dtype[np.float32]]:
        if not query:
            self.seen += texts
            if self._fails_after is not None and len(self.seen) > self._fails_after:
                raise Unavailable("the embedder is away")
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[sum(word.encode()) % self.dimensions] += 1
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return rows if self._bad is None else np.full_like(rows, self._bad)


class Judge:
    """A reranker that likes one word."""

    name = "judge"

    def __init__(self, word: str, *, away: bool = False, odd: float | None = None) -> None:
        self._word, self._away, self._odd = word, away, odd

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> list[float]:
        if self._away:
            raise Unavailable("the reranker is away")
        return [self._odd if self._odd is not None else float(self._word in text) for text in texts]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = SqlStore(f"sqlite:///{tmp_path}/log.db")
    yield opened
    opened.close()


@pytest.fixture
def library(store: SqlStore) -> Library:
    return Library(store.documents, Hashing())


def found(library: Library, text: str, *, tenant: str = "t", **rest: Any) -> list[str]:
    return [one.document_id for one in library.search(tenant, Query(text, "n", **rest)).found]


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
        ],
    )
    def test_a_bad_document_writes_none(self, library: Library, store: SqlStore, sources: list[Source]) -> None:
        with pytest.raises(InvalidInput):
            library.ingest("t", "n", sources)
        assert store.documents.documents("t", "n") == []

    @pytest.mark.parametrize("text", ["", "   \n ", "\u2003"])
    def test_an_empty_document_is_kept_and_found_by_nothing(self, library: Library, store: SqlStore, text: str) -> None:
        library.ingest("t", "n", [Source(text, id="empty"), Source("The tram.", id="full")])
        assert found(library, "tram") == ["full"]
        assert [one.id for one in store.documents.documents("t", "n")] == ["empty", "full"]

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


class TestSearch:
    @pytest.fixture
    def filled(self, library: Library) -> Library:
        rows = [
            Source("the tram of Ada", id="ada", user_id="ada", metadata={"kind": "note", "n": 1}, at=100.0),
            Source("the tram of Bob", id="bob", user_id="bob", session_id="s1", metadata={"kind": "mail"}, at=200.0),
            Source("the tram of all", id="all", metadata={"kind": "note", "n": 2}, at=300.0),
        ]
        library.ingest("t", "n", rows)
        return library

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (Filter(), {"ada", "bob", "all"}),
            (Filter(user_id="ada"), {"ada", "all"}),
            (Filter(user_id="nobody"), {"all"}),
            (Filter(session_id="s1"), {"bob"}),
            (Filter(metadata={"kind": "note"}), {"ada", "all"}),
            (Filter(metadata={"kind": ["mail", "fax"]}), {"bob"}),
            (Filter(metadata={"kind": "note", "n": 2}), {"all"}),
            (Filter(since=200.0), {"bob", "all"}),
            (Filter(since=100.0, until=200.0), {"ada"}),
            (Filter(document_ids=["ada", "gone"]), {"ada"}),
            (Filter(metadata={"none": 1}), set()),
        ],
    )
    @pytest.mark.parametrize("mode", ["hybrid", "dense", "words"])
    def test_filters(self, filled: Library, wanted: Filter, expected: set[str], mode: str) -> None:
        assert set(found(filled, "tram", filter=wanted, mode=mode)) == expected

    def test_tenants_and_namespaces_are_apart(self, filled: Library) -> None:
        assert found(filled, "tram", tenant="other") == []
        assert filled.search("t", Query("tram", "elsewhere")).found == ()
        filled.ingest("other", "n", [Source("the tram of another", id="ada")])
        assert found(filled, "tram", tenant="other") == ["ada"]
        assert set(found(filled, "tram")) == {"ada", "bob", "all"}

    def test_more_than_there_are_gives_all(self, filled: Library) -> None:
        assert len(found(filled, "tram", k=1000)) == 3
        assert found(filled, "tram", k=0) == []

    @pytest.mark.parametrize(
        "bad",
        [{"text": ""}, {"text": "  "}, {"text": "x" * 20_001}, {"k": -1}, {"k": 1001}, {"mode": "magic"}, {"mmr": 2.0}],
    )
    def test_bad_queries_are_refused(self, bad: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            Query(**{"text": "tram", "namespace": "n", **bad})

    def test_a_reranker_reads_again(self, store: SqlStore, filled: Library) -> None:
        judged = Library(store.documents, Hashing(), Judge("Bob"))
        assert found(judged, "tram", rerank=True)[0] == "bob"

    @pytest.mark.parametrize("judge", [None, Judge("Bob", away=True)])
    def test_without_a_reranker_the_first_order_stands_and_says_so(
        self, store: SqlStore, filled: Library, judge: Judge | None
    ) -> None:
        result = Library(store.documents, Hashing(), judge).search("t", Query("tram of Ada", "n", rerank=True))
        assert result.degraded == ("reranker",)
        assert result.found[0].document_id == "ada"

    @pytest.mark.parametrize("odd", [float("nan"), float("-inf"), float("inf")])
    def test_odd_scores_of_a_reranker_change_no_order(self, store: SqlStore, filled: Library, odd: float) -> None:
        judged = Library(store.documents, Hashing(), Judge("Bob", odd=odd))
        assert found(judged, "tram of Ada", rerank=True) == found(filled, "tram of Ada")

    def test_diversity(self, library: Library) -> None:
        same = [Source(f"tram harbour ledger copy{n}", id=f"same{n}") for n in range(4)]
        library.ingest("t", "n", [*same, Source("tram opera", id="other")])
        assert "other" not in found(library, "tram harbour ledger", k=2)
        assert "other" in found(library, "tram harbour ledger", k=2, mmr=0.3)

    def test_an_embedder_that_is_away_leaves_the_words(self, store: SqlStore, filled: Library) -> None:
        class Away(Hashing):
            def embed(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray[Any, Any]:
                raise Unavailable("away")

        library = Library(store.documents, Away())
        result = library.search("t", Query("tram", "n"))
        assert len(result.found) == 3
        assert result.degraded == ("embedder",) and not result.exact
        with pytest.raises(Unavailable):
            library.search("t", Query("tram", "n", mode="dense"))

    def test_a_budget_keeps_the_best_that_fit(self, filled: Library) -> None:
        result = filled.search("t", Query("tram", "n"))
        one = Estimate().texts([result.found[0].text])[0]
        assert within(result.found, one, Estimate()) == result.found[:1]
        assert within(result.found, 0, Estimate()) == ()
        with pytest.raises(InvalidInput):
            within(result.found, -1, Estimate())

    def test_deleting_while_searching_is_safe(self, library: Library) -> None:
        library.ingest("t", "n", [Source(f"tram number {n}", id=f"d{n:03}") for n in range(60)])

        def search() -> bool:
            texts = [f.text for _ in range(15) for f in library.search("t", Query("tram", "n", k=60)).found]
            return all(text.startswith("tram") for text in texts)

        with ThreadPoolExecutor(3) as pool:
            searches = [pool.submit(search) for _ in range(3)]
            for n in range(60):
                library.delete("t", "n", [f"d{n:03}"])
            assert all(one.result() for one in searches)
        assert found(library, "tram") == []


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
