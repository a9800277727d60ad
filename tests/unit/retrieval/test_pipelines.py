from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from ctxmem.errors import InvalidInput, Unavailable
from ctxmem.retrieval.library import Library, Query, Results, Source
from ctxmem.retrieval.pipelines import MOST_TEXTS, Following, Pipeline, asearch, search
from ctxmem.stores.sql import SqlStore
from ctxmem.types import Message
from tests.unit.retrieval.fakes import Hashing, Judge

TEXTS = {
    "ada": "Ada was taught by Babbage",
    "babbage": "Babbage built engines in Walworth",
    "tram": "the tram stops at nine",
    "noise": "who where which what question",
}


class Scripted:
    """Says one text after the other, and remembers what it was asked."""

    def __init__(self, *says: str | Exception) -> None:
        self._says, self.heard = list(says), list[str]()

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        self.heard.append(messages[-1].text)
        said = self._says.pop(0)
        if isinstance(said, Exception):
            raise said
        yield from (said[:3], said[3:])


class AsyncScripted(Scripted):
    async def complete(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncIterator[str]:  # type: ignore[override]
        for piece in super().complete(messages, max_tokens=max_tokens):
            yield piece


class Overheard:
    """Finds nothing, and notes what it is to look ahead from; that waits while it is told to."""

    def __init__(self) -> None:
        self.calls, self.go = list[tuple[str, ...]](), threading.Event()
        self.go.set()

    def search(self, tenant: str, query: Query) -> Results:
        return Results()

    def prefetch(self, *asked: str) -> None:
        if asked[3]:
            assert self.go.wait(20)
        self.calls.append(asked)


@pytest.fixture
def filled(library: Library) -> Library:
    library.ingest("t", "n", [Source(text, id=id) for id, text in TEXTS.items()])
    return library


def ids(library: Library, model: Scripted, pipeline: Pipeline, **more: object) -> list[str]:
    query = Query("who?", "n", k=3, mode="words", **more)  # type: ignore[arg-type]
    done = search(library, "t", query, model, pipeline=pipeline)
    return [one.document_id for one in done.found]


class TestPipelines:
    def test_plain_asks_nobody(self, filled: Library) -> None:
        assert ids(filled, Scripted(), "plain") == ["noise"]

    def test_hyde_searches_with_a_passage_too(self, filled: Library) -> None:
        model = Scripted("The tram stops at nine every day.")
        assert set(ids(filled, model, "hyde")) == {"tram", "noise"}
        assert model.heard == ["who?"]

    def test_each_part_of_a_question_is_searched_with(self, filled: Library) -> None:
        model = Scripted("1. Ada taught\n\n- Babbage engines\n3) tram stops\n* nobody reads this: Walworth\nwho?")
        found = set(ids(filled, model, "subquestions"))
        assert found <= set(TEXTS) and len(found) == MOST_TEXTS

    def test_what_is_missing_is_looked_up_until_it_is_done(self, filled: Library) -> None:
        """The second look finds what the first passage names; each look's passages are shown."""
        model = Scripted("Ada taught\nand more", "Babbage engines", " DONE.")
        assert {"ada", "babbage"} <= set(ids(filled, model, "iterative"))
        assert TEXTS["ada"] in model.heard[1] and TEXTS["babbage"] in model.heard[2]

    def test_a_model_that_repeats_itself_ends_the_rounds(self, filled: Library) -> None:
        model = Scripted("Ada taught", "Ada taught", "never asked")
        ids(filled, model, "iterative")
        assert len(model.heard) == 2

    @pytest.mark.parametrize("pipeline", ["hyde", "subquestions", "iterative"])
    @pytest.mark.parametrize("says", ["", " \n\t ", "who?", "\u202e\x00", "w " * 50_000])
    def test_odd_answers_leave_a_search(self, filled: Library, pipeline: Pipeline, says: str) -> None:
        assert "noise" in ids(filled, Scripted(*[says] * 4), pipeline)

    @pytest.mark.parametrize("pipeline", ["hyde", "subquestions", "iterative"])
    def test_a_model_that_fails_leaves_the_plain_search_and_says_so(self, filled: Library, pipeline: Pipeline) -> None:
        query = Query("who?", "n", mode="words")
        done = search(filled, "t", query, Scripted(Unavailable("gone")), pipeline=pipeline)
        assert ([one.document_id for one in done.found], done.degraded) == (["noise"], ("pipeline",))

    def test_a_later_round_that_fails_keeps_the_earlier(self, filled: Library) -> None:
        model = Scripted("Ada taught", Unavailable("gone"))
        done = search(filled, "t", Query("who?", "n", mode="words"), model, pipeline="iterative")
        assert "ada" in [one.document_id for one in done.found] and done.degraded == ("pipeline",)

    def test_the_reranker_reads_the_question_alone(self, store: SqlStore, filled: Library) -> None:
        judge = Judge("Walworth")
        without = ids(filled, Scripted("Babbage engines Ada"), "hyde")
        judged = ids(Library(store.documents, Hashing(), judge), Scripted("Babbage engines Ada"), "hyde", rerank=True)
        assert set(judge.asked) == {"who?"}
        assert judged.index("babbage") <= without.index("babbage")

    @pytest.mark.parametrize("kind", [Scripted, AsyncScripted])
    def test_async_finds_the_same(self, filled: Library, kind: type[Scripted]) -> None:
        query, says = Query("who?", "n", k=3), ("Ada taught", "Babbage engines", "DONE")
        expected = search(filled, "t", query, Scripted(*says), pipeline="iterative")
        found = asyncio.run(asearch(filled, "t", query, kind(*says), pipeline="iterative"))
        assert found.found == expected.found

    def test_an_unknown_pipeline_is_refused(self, filled: Library) -> None:
        with pytest.raises(InvalidInput, match="subquestions"):
            search(filled, "t", Query("who?", "n"), Scripted(), pipeline="magic")  # type: ignore[arg-type]


class TestFollowing:
    """The disk gets ready while the model writes."""

    @pytest.mark.parametrize(
        ("pipeline", "says", "heard"),
        [
            ("hyde", "Ada was by nobody", ["Ada", "Ada was", "Ada was by n", "Ada was by nobod"]),
            ("subquestions", "1. Ada?\n- engines\nwho?\n", ["A", "Ada?", "en", "engine", "engines", "wh", "engines"]),
            ("iterative", "Ada taught\nand more", ["Ada", "Ada taug", "Ada taught"]),
        ],
    )
    def test_what_is_written_is_looked_ahead_from(self, pipeline: Pipeline, says: str, heard: list[str]) -> None:
        """Every four pieces and at the end of each line, as it will be searched with."""
        library, pieces = Overheard(), []
        with Following(library, "t", Query("who?", "n"), pipeline) as following:
            for letter in says:
                pieces.append(letter)
                following(pieces)
                if following._last is not None:
                    following._last.result(20)
        assert library.calls == [("t", "n", "who?", text) for text in heard]

    @pytest.mark.parametrize("kind", [Scripted, AsyncScripted])
    def test_it_begins_with_the_question(self, kind: type[Scripted]) -> None:
        library, query, model = Overheard(), Query("who?", "n"), kind("Ada taught\n", "DONE")
        if kind is Scripted:
            search(library, "t", query, model, pipeline="iterative")
        else:
            asyncio.run(asearch(library, "t", query, model, pipeline="iterative"))
        assert library.calls[0] == ("t", "n", "who?", "")
        assert {call[3] for call in library.calls[1:]} <= {"Ada taught"}

    def test_a_slow_lookahead_holds_up_nothing(self) -> None:
        """Neither the model nor the search; what it has not begun by then it never does."""
        library = Overheard()
        library.go.clear()
        done = search(library, "t", Query("who?", "n"), Scripted("one\n", "DONE"), pipeline="iterative")
        assert done == Results()
        library.go.set()
