from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.errors import InvalidInput
from ctxmem.lm.encoder import embedder_named
from ctxmem.ports import Match
from ctxmem.retrieval.fuse import diverse, standardised, weighted
from ctxmem.retrieval.hybrid import Hybrid
from ctxmem.retrieval.words import WordIndex

TEXTS = {
    "ada": "Ada moved to Porto in spring.",
    "tram": "The tram to the harbour stops at nine in the evening.",
    "code": "Error E4017 is raised when the ledger is frozen.",
    "cat": "A kitten sleeps on the warm windowsill.",
}

Scores = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1e3, 1e3), max_size=8)


class TestFusion:
    @given(Scores, Scores, st.floats(0, 1), st.integers(0, 9))
    def test_finds_each_candidate_once_in_order(
        self, one: dict[str, float], other: dict[str, float], weight: float, k: int
    ) -> None:
        found = weighted((one, other), (weight, 1 - weight), k)
        assert len(found) == min(k, len(one.keys() | other.keys()))
        assert len({match.id for match in found}) == len(found)
        assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)

    @given(Scores, st.floats(0.1, 100), st.floats(-100, 100))
    def test_the_scale_of_a_side_does_not_matter(self, side: dict[str, float], factor: float, shift: float) -> None:
        whole = {id: round(score) for id, score in side.items()}
        moved = {id: score * factor + shift for id, score in whole.items()}
        assert standardised(moved) == pytest.approx(standardised(whole), abs=1e-4)

    def test_all_weight_on_one_side_gives_its_order(self) -> None:
        one, other = {"a": 3.0, "b": 2.0, "c": 1.0}, {"a": 1.0, "b": 2.0, "c": 3.0}
        assert [m.id for m in weighted((one, other), (1, 0), 3)] == ["a", "b", "c"]
        assert [m.id for m in weighted((one, other), (0, 1), 3)] == ["c", "b", "a"]

    def test_weights_are_checked(self) -> None:
        with pytest.raises(InvalidInput):
            weighted(({"a": 1.0},), (0.5, 0.5), 1)
        with pytest.raises(InvalidInput):
            weighted(({"a": 1.0},), (-1.0,), 1)

    def test_diversity_leaves_out_what_says_the_same(self) -> None:
        found = [Match("a", 1.0), Match("copy of a", 0.99), Match("b", 0.5)]

        def alike(one: str, other: str) -> float:
            return 1.0 if one[-1] == other[-1] else 0.0

        assert [m.id for m in diverse(found, 2, alike=alike, relevance=0.5)] == ["a", "b"]
        assert [m.id for m in diverse(found, 2, alike=alike, relevance=1.0)] == ["a", "copy of a"]
        with pytest.raises(InvalidInput):
            diverse(found, 2, alike=alike, relevance=1.5)


class TestWords:
    def test_stems_and_case_do_not_matter(self) -> None:
        index = WordIndex()
        index.add({"a": "RUNNING shoes", "b": "walking"})
        assert [m.id for m in index.search("he runs", 5)] == ["a"]

    def test_scripts_without_spaces_are_found_by_pairs(self) -> None:
        index = WordIndex()
        index.add({"tokyo": "東京都の天気は晴れです", "kyoto": "京都のお寺", "de": "Über Straßen"})
        assert index.search("天気", 5)[0].id == "tokyo"
        assert index.search("STRASSEN", 5)[0].id == "de"

    @pytest.mark.parametrize("text", ["", "   ", "!!! ...", "the of and"])
    def test_texts_and_queries_without_words(self, text: str) -> None:
        index = WordIndex()
        index.add({"empty": text})
        assert index.search("word", 3) == []
        index.add({"full": "a word"})
        assert index.search(text, 3) == []
        assert [m.id for m in index.search("word", 3)] == ["full"]

    def test_a_text_is_replaced_and_removed(self) -> None:
        index = WordIndex()
        index.add({"a": "old words", "b": "other words"})
        index.add({"a": "new text"})
        assert [m.id for m in index.search("old", 3)] == []
        assert [m.id for m in index.search("text", 3)] == ["a"]
        assert index.remove(["a", "a", "gone"]) == 1
        assert index.search("text", 3) == []


@pytest.fixture(scope="module")
def filled() -> Hybrid:
    found = Hybrid(embedder_named("minilm"))
    found.add(TEXTS)
    return found


class TestHybrid:
    def test_finds_by_meaning_and_by_word(self, filled: Hybrid) -> None:
        assert filled.search("where does a small cat nap?", 1)[0].id == "cat"
        assert filled.search("E4017", 1)[0].id == "code"

    def test_modes_search_one_side(self, filled: Hybrid) -> None:
        assert filled.search("pet", 4, mode="words") == []
        assert filled.search("pet", 1, mode="dense")[0].id == "cat"

    @pytest.mark.parametrize("mode", ["hybrid", "dense", "words"])
    def test_only_what_is_asked_for_is_found(self, filled: Hybrid, mode: str) -> None:
        found = filled.search("the tram stops", 4, mode=mode, among=["ada", "tram"])  # type: ignore[arg-type]
        assert {m.id for m in found} <= {"ada", "tram"}
        assert found[0].id == "tram"

    def test_what_was_written_is_found_at_once_and_what_was_removed_never(self) -> None:
        found = Hybrid(embedder_named("minilm"))
        assert found.search("anything", 3) == []
        found.add({"x": "The password of the vault is swordfish."})
        assert found.search("vault password", 1)[0].id == "x"
        found.add({"x": "The garden has roses."})
        assert found.search("vault password", 3, mode="words") == []
        assert found.remove(["x"]) == 1
        assert found.search("roses", 3) == []
        assert len(found) == 0

    def test_works_by_words_alone_without_an_embedder(self) -> None:
        found = Hybrid(None)
        found.add(TEXTS)
        assert found.search("tram", 2)[0].id == "tram"
        with pytest.raises(InvalidInput, match="embedder"):
            found.search("tram", 2, mode="dense")

    def test_more_than_there_are_gives_all(self, filled: Hybrid) -> None:
        assert len(filled.search("tram", 1000)) == len(TEXTS)
        assert filled.search("tram", 0) == []
        with pytest.raises(InvalidInput):
            filled.search("tram", -1)
        with pytest.raises(InvalidInput):
            filled.search("tram", 1, mode="magic")  # type: ignore[arg-type]

    def test_bad_vectors_change_nothing(self) -> None:
        found = Hybrid(embedder_named("minilm"))
        with pytest.raises(InvalidInput):
            found.add({"x": "text"}, np.full((1, 384), np.nan, dtype=np.float32))
        assert len(found) == 0
        assert found.search("text", 1) == []
