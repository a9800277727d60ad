from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.ports import Match
from ctxmem.retrieval.library import Library, Source
from ctxmem.retrieval.links import SOURCES, followed, names
from ctxmem.stores.sql import SqlStore
from tests.unit.retrieval.fakes import Hashing, Judge, found

TEXTS = {
    "film": "Kiss and Tell is a film with Shirley Temple as Corliss Archer.",
    "series": "A Kiss for Corliss is a film of 1949.",
    "woman": "She was a child star, later chief of protocol.",
    "other": "Ed Wood made films.",
}
NAMES = {"film": {"kiss and tell"}, "series": {"a kiss for corliss"}, "woman": {"shirley temple"}, "other": {"ed wood"}}
RANKED = [Match("film", 9.0), Match("series", 5.0), Match("other", 2.0), Match("woman", 1.0)]


def order(ranked: list[Match], texts: dict[str, str], known: dict[str, set[str]]) -> list[str]:
    return [match.id for match in followed(ranked, texts, known)]


class TestFollowed:
    def test_what_the_best_one_names_comes_up(self) -> None:
        assert order(RANKED, TEXTS, NAMES) == ["film", "woman", "series", "other"]

    def test_without_names_nothing_changes(self) -> None:
        assert order(RANKED, TEXTS, {}) == ["film", "series", "other", "woman"]

    def test_what_a_worse_one_names_stays(self) -> None:
        texts = TEXTS | {"film": "A film.", "woman": "She was no friend of Ed Wood."}
        assert order(RANKED, texts, NAMES) == ["film", "series", "other", "woman"]

    def test_passages_under_one_name_do_not_lift_each_other(self) -> None:
        same = {id: {"kiss and tell"} for id in TEXTS}
        assert order(RANKED, dict.fromkeys(TEXTS, "Kiss and Tell"), same) == ["film", "series", "other", "woman"]

    def test_a_name_leads_to_the_best_passage_under_it(self) -> None:
        ranked = [*RANKED, Match("late", 0.5)]
        texts, known = TEXTS | {"late": "Later life."}, NAMES | {"late": {"shirley temple"}}
        assert order(ranked, texts, known) == ["film", "woman", "series", "other", "late"]

    def test_a_name_that_many_say_lifts_less(self) -> None:
        rows = [Match(f"{n:02}", 20.0 - n) for n in range(12)] + [Match("named", 0.0)]
        rare = {match.id: "words" for match in rows} | {"00": "see Ada"}
        common = {match.id: "see Ada" for match in rows}
        known = {"named": {"ada"}}
        assert order(rows, rare, known).index("named") < order(rows, common, known).index("named")

    def test_a_part_of_a_word_is_no_name(self) -> None:
        assert order(RANKED, TEXTS | {"film": "Shirley Templeton"}, NAMES)[1] == "series"

    def test_nothing_in_nothing_out(self) -> None:
        assert followed([], {}, {}) == []

    @given(st.data())
    def test_no_one_is_lost_and_none_passes_the_one_that_names_it(self, data: st.DataObject) -> None:
        ids = [f"{n}" for n in range(data.draw(st.integers(1, 12)))]
        scores = data.draw(st.lists(st.floats(-5, 5), min_size=len(ids), max_size=len(ids)))
        ranked = [Match(id, score) for id, score in zip(ids, scores, strict=True)]
        said = {id: " ".join(f"name{n}" for n in data.draw(st.sets(st.sampled_from(ids)))) for id in ids}
        known = {id: {f"name{id}"} for id in ids}
        before = [match.id for match in followed(ranked, {}, {})]
        after = [match.id for match in followed(ranked, said, known)]
        assert sorted(after) == sorted(ids)
        assert after[0] == before[0]
        for id in ids:
            sources = [one for one in before[:SOURCES] if one != id and f"name{id}" in said[one].split()]
            if after.index(id) < before.index(id) and all(before.index(one) > before.index(id) for one in sources):
                pytest.fail(f"{id} rose although no better one names it")


class TestNames:
    @pytest.mark.parametrize(
        ("lead", "expected"),
        [
            ("Shirley Temple", {"shirley temple"}),
            ("Kiss and Tell (1945 film)", {"kiss and tell"}),
            ("Handbook\nSetup > On Linux", {"handbook", "on linux"}),
            ("ctxmem.plan > Plan > build", {"build"}),
            ("[8 May 2023] Ann: hello", set()),
            ("one two three four five six seven eight nine", set()),
            ("ab", set()),
            ("", set()),
            ("Éder\u200b Ünal", {"éder ünal"}),
        ],
    )
    def test_names_of_a_lead(self, lead: str, expected: set[str]) -> None:
        assert names(lead) == expected


def test_a_library_that_reads_again_follows_names(store: SqlStore) -> None:
    titles = {"film": "Kiss and Tell", "series": "A Kiss for Corliss", "woman": "Shirley Temple", "other": "Ed Wood"}
    library = Library(store.documents, Hashing(), Judge("no word of them"))
    library.ingest("t", "n", [Source(text, id=id, title=titles[id]) for id, text in TEXTS.items()])
    library.ingest("t", "n", [Source(f"a film of {year}", id=f"{year}") for year in range(1950, 1970)])
    question = "who was Corliss Archer in the film Kiss and Tell"
    plain, again = (found(library, question, k=30, rerank=rerank) for rerank in (False, True))
    assert again.index("woman") < plain.index("woman")


def test_a_title_that_is_given_is_searched(library: Library) -> None:
    library.ingest("t", "n", [Source("A star.", id="woman", title="Shirley Temple"), Source("A film.", id="film")])
    assert found(library, "Temple", mode="words") == ["woman"]
