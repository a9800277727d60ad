"""What lookahead saves where a model writes before a search: tickets taken for the question as it comes in.

Part of `bench.pipelines --ahead`. Each question goes through the product's own pipelines over an index on disk that has
been put out of the page cache: without a ticket; with one for the question alone; with one that is also fed with what
the model has written, as the pipelines do it. `after` is what the user waits for when the model has
written: MiniLM's vectors of what it wrote, and the searches. Then the same texts again behind a model that takes a
fixed time (it sleeps), for the index as it is (codes in memory, few vectors read) and for one without codes, which
reads its clusters whole.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from bench.local_models import Writer
from ctxmem.ports import Embedder
from ctxmem.retrieval.pipelines import Pipeline, search
from ctxmem.retrieval.query import Query, Results
from ctxmem.retrieval.tiered.build import build
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.retrieval.tiered.lookahead import Ticket
from ctxmem.retrieval.tiered.segment import ROWS, Segment

Floats = NDArray[np.float32]

WAYS = ("none", "question", "fed")
"""Lookaheads by name: twice as many clusters as a search looks into for the question, or, as the library does it, half
as many, and then up to as many for each bit that the model writes."""
WRITING: tuple[Pipeline, ...] = ("hyde", "subquestions")
GAPS = (0.04, 0.15, 0.4)
"""Seconds that a model of fixed speed takes."""
PARTS = (0.25, 0.5, 0.75)
"""Shares of the gap at which its ticket is fed."""
NOISE = 0.5
"""Length of the noise that makes a copy of a vector, whose own length is 1."""
K = 10


@dataclass(slots=True)
class Turn:
    """One question on its way through one pipeline.

    Attributes:
        embedding: seconds to embed what was written.
        searching: seconds of the searches.
        whole: seconds of all.
        hits: of the clusters that the searches of what the model wrote look into, the share that was there.
        fetched: clusters that were brought in.
        texts: searched with, the question first.
        drafts: what was written at each feed.
    """

    embedding: float = 0.0
    searching: float = 0.0
    whole: float = 0.0
    hits: float = 0.0
    fetched: int = 0
    texts: tuple[str, ...] = ()
    drafts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Size:
    """How large the index is, and how much of it a search reads.

    Attributes:
        copies: of each vector, with noise, so that there is something to read.
        lists: clusters; None for about four times the root of the number of vectors.
        probed: clusters of a search; models of a fixed speed are measured with each, the written turns with the first.
    """

    copies: int
    lists: int | None
    probed: Sequence[int]


def measure(questions: Sequence[str], vectors: Floats, models: tuple[Embedder, Writer], size: Size) -> None:
    """Build the index and print the tables."""
    embedder, writer = models
    with tempfile.TemporaryDirectory() as folder:
        index = built(Path(folder), vectors, embedder, size)
        shelf = Shelf(index, embedder, writer)
        lists, count = shelf.segment.manifest.lists, len(index)
        onto = 4 * count * embedder.dimensions // 1_000_000
        print(f"{count} vectors ({len(vectors)} of passages), {onto} MB on disk, {lists} clusters", flush=True)
        turns = {pipeline: written(pipeline, questions, shelf) for pipeline in WRITING}
        for probed in size.probed:
            index.probed = probed
            for pipeline in WRITING:
                print(f"\n{pipeline}, {probed} clusters searched, a model of fixed speed")
                replayed(turns[pipeline], shelf)
        index.close()


def built(folder: Path, vectors: Floats, embedder: Embedder, size: Size) -> TieredIndex:
    """An index on disk of the vectors and their copies, which are not all in memory at once."""
    count, path = len(vectors) * (1 + size.copies), folder / "vectors.npy"
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, vectors.shape[1]))
    for copy in range(1 + size.copies):
        rows[copy * len(vectors) : (copy + 1) * len(vectors)] = noisy(vectors, copy) if copy else vectors
    build(folder / "first", list(map(str, range(count))), rows, fingerprint=embedder.name, lists=size.lists)
    del rows
    path.unlink()
    (folder / "current").write_text("first")
    return TieredIndex(folder, embedder.name, embedder.dimensions, probed=size.probed[0])


def noisy(vectors: Floats, seed: int) -> Floats:
    """Other vectors in the neighbourhood of each."""
    noise = np.random.default_rng(seed).normal(size=vectors.shape).astype(np.float32)
    made = vectors + NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    out: Floats = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return out


class Shelf:
    """The index behind the port that pipelines search; remembers one turn at a time."""

    def __init__(self, index: TieredIndex, embedder: Embedder, writer: Writer) -> None:
        assert index.segment is not None
        self.index, self.embedder, self.writer = index, embedder, writer
        self.segment: Segment = index.segment
        self.way, self.turn = "none", Turn()
        self._ticket: Ticket | None = None

    def ask(self, question: str, pipeline: Pipeline, way: str) -> Turn:
        """One turn, from the incoming message to what was found, with the clusters on disk alone."""
        self.way, self.turn, self._ticket = way, Turn(), None
        self.drop()
        began = time.perf_counter()
        search(self, "bench", Query(question, k=K), self.writer, pipeline=pipeline, timeout_s=600)
        self.turn.whole = time.perf_counter() - began
        return self.turn

    def prefetch(self, tenant: str, namespace: str, text: str = "", written: str | None = None, /) -> None:
        """The message has come in, or the model has written so much."""
        if written:
            self.turn.drafts.append(written)
            if self.way == "fed" and self._ticket is not None:
                self._ticket.feed(self.vectors([written])[0])
        elif self.way != "none":
            self._ticket = self.ahead(self.vectors([text])[0], self.way, 1.0)

    def search(self, tenant: str, query: Query, /) -> Results:
        """The model has written."""
        turn, began = self.turn, time.perf_counter()
        turn.texts = query.text, *query.also
        rows = self.vectors(turn.texts)
        embedded = time.perf_counter()
        there = dict(self._ticket.fetched) if self._ticket else {}
        for row in rows:
            self.index.find(row, K, ticket=self._ticket)
        turn.embedding, turn.searching = embedded - began, time.perf_counter() - embedded
        turn.hits, turn.fetched = self.hits(rows, there), len(there)
        return Results()

    def ahead(self, vector: Floats, way: str, expect: float) -> Ticket | None:
        """A lookahead of this kind."""
        return self.index.lookahead(vector, expect=expect, growing=way == "fed") if way != "none" else None

    def hits(self, rows: Floats, there: dict[int, int]) -> float:
        """Of the clusters that what the model wrote is searched in, the share that is there."""
        wanted = [number for row in rows[1:] for number in self.segment.nearest(row, self.index.probed).tolist()]
        return fmean(number in there for number in wanted) if wanted else 1.0

    def vectors(self, texts: Sequence[str]) -> Floats:
        """(texts, dimensions)."""
        made: Floats = np.asarray(self.embedder.embed(texts, query=True), dtype=np.float32)
        return made

    def drop(self) -> None:
        """Put the vectors' file out of the page cache."""
        handle = os.open(self.segment.folder / ROWS, os.O_RDONLY)
        os.fsync(handle)  # pages that are not yet written stay
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)

    def clusters(self, rows: Floats) -> None:
        """The searches of an index without codes: every vector of the clusters is read."""
        for row in rows:
            for number in self.segment.nearest(row, self.index.probed).tolist():
                raw = self.segment._read(*self.segment.span(number))
                np.frombuffer(raw, dtype="<f4").reshape(-1, self.index.dimensions) @ row


def written(pipeline: Pipeline, questions: Sequence[str], shelf: Shelf) -> list[Turn]:
    """The table of one pipeline behind SmolLM2; returns its turns without lookahead."""
    turns: dict[str, list[Turn]] = defaultdict(list)
    for number, question in enumerate(questions):
        shift = number % len(WAYS)
        for way in [*WAYS][shift:] + [*WAYS][:shift]:
            turns[way].append(shelf.ask(question, pipeline, way))
    base = turns["none"]
    more = fmean(len(turn.texts) - 1 for turn in base)
    seconds = median(turn.whole for turn in base)
    print(f"\n{pipeline}, {len(questions)} questions, {shelf.index.probed} clusters searched; in ms. SmolLM2 writes")
    print(f"{more:.1f} texts for each in {seconds:.1f} s\n")
    print("| lookahead | hit rate | clusters fetched | embedding | searches | ratio | after, ratio | whole, ratio |")
    print("|" + "---|" * 8)
    for way, rows in turns.items():
        after = [row.embedding + row.searching for row in rows]
        hits = fmean(row.hits for row in rows if len(row.texts) > 1)
        cells = [f"{hits:.2f}", f"{fmean(row.fetched for row in rows):.0f}"]
        cells += [f"{1000 * median(row.embedding for row in rows):.1f}"]
        cells += [f"{1000 * median(row.searching for row in rows):.2f}"]
        cells += [f"{median(r.searching for r in rows) / median(r.searching for r in base):.2f}"]
        cells += [f"{median(after) / median(row.embedding + row.searching for row in base):.2f}"]
        cells += [f"{sum(row.whole for row in rows) / sum(row.whole for row in base):.2f}"]
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)
    return base


def replayed(turns: Sequence[Turn], shelf: Shelf) -> None:
    """The same texts behind a model that takes a fixed time: median of the whole turn, by gap and index."""
    took: dict[tuple[float, str, str], list[float]] = defaultdict(list)
    for turn in turns:
        rows = shelf.vectors(turn.texts)
        drafts = (
            shelf.vectors([turn.drafts[int(part * len(turn.drafts))] for part in PARTS]) if turn.drafts else rows[:0]
        )
        for gap in GAPS:
            for way in WAYS:
                for reads in ("codes", "whole clusters"):
                    took[gap, reads, way].append(_turn(shelf, rows, drafts, (gap, way, reads)))
    print("\n| model takes | index | " + " | ".join(f"{way}, ms" for way in WAYS) + " | times sooner, question / fed |")
    print("|" + "---|" * (len(WAYS) + 3))
    for gap in GAPS:
        for reads in ("codes", "whole clusters"):
            middle = {way: 1000 * median(took[gap, reads, way]) for way in WAYS}
            sooner = [f"{middle['none'] / middle[way]:.2f}" for way in [*WAYS][1:]]
            cells = " | ".join(f"{value:.1f}" for value in middle.values())
            print(f"| {1000 * gap:.0f} ms | {reads} | {cells} | {' / '.join(sooner)} |", flush=True)


def _turn(shelf: Shelf, rows: Floats, drafts: Floats, at: tuple[float, str, str]) -> float:
    """Seconds of one turn: the gap, then the searches."""
    gap, way, reads = at
    shelf.drop()
    began = time.perf_counter()
    ticket = shelf.ahead(rows[0], way, gap)
    if ticket is not None and way == "fed":
        for part, draft in zip(PARTS, drafts, strict=False):
            time.sleep(max(0.0, began + part * gap - time.perf_counter()))
            ticket.feed(draft)
    time.sleep(max(0.0, began + gap - time.perf_counter()))
    if reads == "codes":
        for row in rows:
            shelf.index.find(row, K, ticket=ticket)
    else:
        if ticket is not None:
            ticket.cancel()  # what a search waits for comes before what it may want, as `find` has it
        shelf.clusters(rows)
    return time.perf_counter() - began
