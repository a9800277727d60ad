from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from ctxmem.document import Filter
from ctxmem.errors import InvalidInput, Unavailable
from ctxmem.retrieval.library import Library, Query, Source
from ctxmem.retrieval.query import within
from ctxmem.stores.sql import SqlStore
from ctxmem.tokens.estimate import Estimate
from tests.unit.retrieval.fakes import Hashing, Judge, found


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
        [
            {"text": ""},
            {"text": "  "},
            {"text": "x" * 20_001},
            {"k": -1},
            {"k": 1001},
            {"mode": "magic"},
            {"mmr": 2.0},
            {"k": 2.5},
            {"text": "\ud83c"},
        ],
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


@pytest.mark.parametrize(("kind", "first"), [("text", "bob"), ("chat", "ada")])
def test_among_turns_of_chats_a_reranker_counts_less(store: SqlStore, kind: str, first: str) -> None:
    judged = Library(store.documents, Hashing(), Judge("Bob"))
    said = {"ada": "the tram of Ada", "bob": "a tram, says Bob", "cy": "a bus, says Cy"}
    whole = {
        id: text if kind == "text" else json.dumps([{"role": "Eve", "content": text}]) for id, text in said.items()
    }
    judged.ingest("t", "n", [Source(text, id=id, kind=kind) for id, text in whole.items()])
    assert found(judged, "the tram of Ada", rerank=True)[0] == first
