"""What is got ready before a search: nothing of the result changes, and the search has less to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxmem import ContextManager
from ctxmem.errors import InvalidInput, Unavailable
from ctxmem.retrieval.library import Library, Query, Source
from ctxmem.retrieval.pipelines import search
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.types import Message
from tests.databases import database
from tests.unit.retrieval.fakes import Hashing

ASKED = "where does the tram stop?"


class Counting(Hashing):
    """Counts the questions that it embeds; may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.away = False

    def embed(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray[Any, np.dtype[np.float32]]:
        if self.away:
            raise Unavailable("away")
        self.asked += texts if query else []
        return super().embed(texts, query=query)


@pytest.fixture
def embedder() -> Counting:
    return Counting()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ContextManager]:
    made = ContextManager(database(tmp_path / "log.db"))
    yield made
    made.close()


def filled(manager: ContextManager, embedder: Counting, **options: Any) -> Library:
    library = Library(manager.engine.store.documents, embedder, **options)
    library.ingest("t", "trams", [Source(f"tram {n} stops at gate {n % 7}", id=f"d{n}") for n in range(50)])
    return library


def on_disk(
    folder: Path, manager: ContextManager, embedder: Counting, *, probed: int, lists: int
) -> tuple[Library, TieredIndex]:
    """The same with its vectors on the disk, and their index."""
    made: list[TieredIndex] = []

    def indexes(tenant: str, namespace: str, one: Any) -> TieredIndex:
        made.append(TieredIndex(folder / tenant / namespace, one.name, one.dimensions, probed=probed, trusted=False))
        return made[-1]

    library = filled(manager, embedder, indexes=indexes)
    library.search("t", Query(ASKED, "trams"))
    [index] = made
    index.compact(lists=lists)
    return library, index


@pytest.mark.parametrize("mode", ["hybrid", "dense", "words"])
def test_a_question_is_embedded_once(manager: ContextManager, embedder: Counting, mode: Any) -> None:
    """And found as without; another question is embedded as ever."""
    library = filled(manager, embedder)
    plain = library.search("t", Query(ASKED, "trams", mode=mode)).found
    embedder.asked.clear()
    assert library.prefetch("t", "trams", ASKED)
    assert library.search("t", Query(ASKED, "trams", mode=mode)).found == plain
    assert embedder.asked == [ASKED]
    library.search("t", Query("another", "trams", mode="dense"))
    assert embedder.asked == [ASKED, "another"]


def test_it_sees_what_came_after(manager: ContextManager, embedder: Counting) -> None:
    """A document that is put in between is found, one that is deleted is not."""
    library = filled(manager, embedder)
    library.prefetch("t", "trams", ASKED)
    library.ingest("t", "trams", [Source("where does the tram stop? here", id="new")])
    library.delete("t", "trams", ["d0"])
    found = [one.document_id for one in library.search("t", Query(ASKED, "trams", k=100)).found]
    assert found[0] == "new"
    assert "d0" not in found


def test_no_tenant_finds_anothers(manager: ContextManager, embedder: Counting) -> None:
    library = filled(manager, embedder)
    library.prefetch("t", "trams", ASKED)
    assert library.search("other", Query(ASKED, "trams")).found == ()


def test_what_cannot_be_prepared_is_left(manager: ContextManager, embedder: Counting) -> None:
    """No text, too much of it, no embedder, an embedder that is away; a name that is none is refused."""
    library = filled(manager, embedder)
    assert library.prefetch("t", "trams")
    assert library.prefetch("t", "trams", "x" * 30_000)
    assert not Library(manager.engine.store.documents, None).prefetch("t", "trams", ASKED)
    embedder.away = True
    assert not library.prefetch("t", "trams", ASKED)
    with pytest.raises(InvalidInput):
        library.prefetch("t", "", ASKED)


def test_a_pipeline_looks_ahead_while_its_model_writes(
    tmp_path: Path, manager: ContextManager, embedder: Counting
) -> None:
    """On the disk too: the clusters of the question were brought in, and the search that follows used them."""
    library, index = on_disk(tmp_path, manager, embedder, probed=4, lists=8)
    waiting = []

    class Writer:
        def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
            waiting.extend(index._waiting)
            assert all(ticket.wait(5) for ticket in waiting)
            yield "The tram stops at gate 3."

    results = search(library, "t", Query(ASKED, "trams"), Writer(), pipeline="hyde")
    assert results.found
    assert len(waiting) == 1
    assert waiting[0].fetched
    assert waiting[0].ended


def test_what_is_written_feeds_the_questions_lookahead(
    tmp_path: Path, manager: ContextManager, embedder: Counting
) -> None:
    """The same one while it is under way, else another; texts that were embedded then are not embedded again."""
    library, index = on_disk(tmp_path, manager, embedder, probed=2, lists=12)
    asked = Query(ASKED, "trams", also=("tram 3", "tram 41 stops at gate 6"))
    plain = library.search("t", asked).found
    library.prefetch("t", "trams", ASKED, "")
    [ticket] = index._waiting
    assert ticket.wait(5)
    before = len(ticket.fetched)
    for text in ("tram 3", "tram 41 stops at gate 6"):
        library.prefetch("t", "trams", ASKED, text)
    library.prefetch("t", "trams", "another question", "tram 3")
    assert ticket.wait(5)
    assert len(ticket.fetched) > before
    assert len(index._waiting) == 2
    index._waiting.pop()
    embedder.asked.clear()
    assert library.search("t", asked).found == plain
    assert embedder.asked == []
    assert ticket.ended
    library.prefetch("t", "trams", ASKED, "tram 3")
    assert [one.ended for one in index._waiting] == [False]
