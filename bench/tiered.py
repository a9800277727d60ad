"""A million vectors: the index on disk beside plain FAISS in memory, cold and warm, with and without lookahead.

    python -m bench.tiered --cache DIR [--count 1000000] [--queries 60]     # builds once; about 1.6 GB in DIR a build
    python -m bench.tiered --cache DIR --exact 100000                       # that many queries, results compared

Vectors are synthetic (384 dimensions, in clusters); a query comes as a pair, what was asked and what a model made of
it, at two distances. Rows of one table are interleaved, query by query; `cold` drops the file from the page cache
before each search. Lookahead starts from the first of the pair and has `--gap` seconds; only the search is timed.
Ratios are of medians to plain FAISS, which searches the same clusters of the same vectors in memory.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from ctxmem.retrieval.tiered.build import build
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.retrieval.tiered.lookahead import Ticket
from ctxmem.retrieval.tiered.segment import ROWS

Floats = NDArray[np.float32]

DIMENSIONS = 384
CENTRES = 5000
SPREAD = 0.7
"""Length of the noise around a centre, whose own length is 1."""
LEVELS = {"near (cos 0.67)": 0.67, "far (cos 0.47)": 0.47}
K = 10
BLOCK = 50_000


def main() -> None:
    """Build what is not there, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--lists", type=int, default=2048)
    parser.add_argument("--probed", type=int, default=32)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--gap", type=float, default=0.15)
    parser.add_argument("--exact", type=int, default=0)
    asked = parser.parse_args()
    faiss.omp_set_num_threads(1)
    vectors = made(asked.cache, asked.count)
    index = opened(asked.cache, vectors, asked.lists, asked.probed)
    bench = Bench(index, vectors, asked.lists)
    if asked.exact:
        bench.exactness(asked.exact)
        return
    bench.memory()
    for name, cosine in LEVELS.items():
        print(f"\n{name}, {asked.queries} queries, {asked.gap * 1000:.0f} ms to look ahead\n")
        bench.latency(cosine, asked.queries, asked.gap)
    bench.overload(asked.queries, asked.gap)


def made(cache: Path, count: int) -> Floats:
    """The vectors, mapped from a file."""
    path = cache / f"vectors{count}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(3)
        centres = unit(rng.normal(size=(CENTRES, DIMENSIONS)))
        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, DIMENSIONS))
        for start in range(0, count, BLOCK):
            size = min(BLOCK, count - start)
            noise = SPREAD * unit(rng.normal(size=(size, DIMENSIONS)))
            out[start : start + size] = unit(centres[rng.integers(0, CENTRES, size)] + noise)
        out.flush()
    mapped: Floats = np.load(path, mmap_mode="r")
    return mapped


def opened(cache: Path, vectors: Floats, lists: int, probed: int) -> TieredIndex:
    """The index over them, built when it is not there; says how long that takes."""
    folder = cache / f"index{len(vectors)}-{lists}"
    if not (folder / "current").exists():
        began, stages = time.perf_counter(), []

        def told(stage: str, share: float) -> None:
            if not stages or stages[-1] != stage:
                stages.append(stage)
                print(f"{time.perf_counter() - began:6.0f} s  {stage}", flush=True)

        ids = [f"v{number}" for number in range(len(vectors))]
        build(folder / "first", ids, vectors, fingerprint="synthetic", lists=lists, progress=told)
        (folder / "current").write_text("first")
        print(f"{time.perf_counter() - began:6.0f} s  {len(vectors)} vectors in {lists} clusters", flush=True)
    return TieredIndex(folder, "synthetic", DIMENSIONS, probed=probed)


class Bench:
    """The index, and plain FAISS over the same clusters."""

    def __init__(self, index: TieredIndex, vectors: Floats, lists: int) -> None:
        assert index.segment is not None
        self.index, self.vectors, self.segment = index, vectors, index.segment
        codes = self.segment.codes.index
        self.plain = faiss.IndexIVFFlat(codes.quantizer, DIMENSIONS, lists, faiss.METRIC_INNER_PRODUCT)
        self.plain.own_fields, self.plain.nprobe = False, index.probed
        for start in range(0, len(vectors), BLOCK):
            self.plain.add(np.ascontiguousarray(vectors[start : start + BLOCK]))

    def memory(self) -> None:
        """Bytes that each holds in memory for a vector."""
        names, residuals = self.segment.ids._held.itemsize + 4, 4
        far = round(self.segment.far.nbytes / len(self.segment))
        ours = self.segment.codes.index.code_size + 8 + residuals + 8 + names + 1 + far
        plain = 4 * DIMENSIONS + 8
        print(f"\nin memory for each vector: {ours} bytes, ids of {names - 4} bytes among them; plain FAISS {plain}")
        print(f"ratio {ours / plain:.2f}; with ids of 35 bytes, as chunks have, {(ours - names + 39) / plain:.2f}")

    def latency(self, cosine: float, count: int, gap: float) -> None:
        """Milliseconds of a search, by way."""
        taken: dict[str, list[Took]] = {}
        read, hits, lists = [], [], []
        for number in range(count):
            first, query = self.pair(number, cosine)
            expected = self.plain.search(query[None], K)
            searches: dict[str, Callable[[], object]] = {
                "plain FAISS, in memory": lambda query=query: self.plain.search(query[None], K),
                "certified, warm": lambda query=query: self.index.find(query, K),
            }
            for name, search in random.Random(number).sample(sorted(searches.items()), 2):
                search()
                taken.setdefault(name, []).append(timed(search)[0])
            for name, ahead, anchors in (
                ("certified, cold", 0, ()),
                ("cold, lookahead x1", 1, ()),
                ("cold, lookahead x2", 2, ()),
                ("cold, lookahead x1, fed on the way", 1, (0.5, 0.8)),
            ):
                self.drop()
                ticket = self.ticket(first, query, ahead, anchors, gap) if ahead else None
                took, found = timed(lambda query=query, ticket=ticket: self.index.find(query, K, ticket=ticket))
                taken.setdefault(name, []).append(took)
                assert _same(found.matches, expected), "the result differs"
                if not ahead:
                    read.append(found.rows_read)
                elif anchors:
                    hits.append(found.fetched / found.lists)
                    lists.append(len(ticket.fetched) if ticket else 0)
            self.drop()
            taken.setdefault("whole clusters read on demand, cold", []).append(self.on_demand(query))
        base = _median(taken["plain FAISS, in memory"])
        print("| search | median ms | p95 | ratio | of the processor, ms | ratio |\n|---|---|---|---|---|---|")
        for name, times in taken.items():
            own, late = _median(times), quantiles([one.ms for one in times], n=20)[-1]
            print(f"| {name} | {own.ms:.2f} | {late:.2f} | {own.ms / base.ms:.2f}", end=" | ")
            print(f"{own.cpu:.2f} | {own.cpu / base.cpu:.2f} |")
        print(f"\nvectors read: median {median(read):.0f}, most {max(read)}")
        print(f"fed on the way: {np.mean(hits):.2f} of the clusters there in time, {np.mean(lists):.0f} fetched")

    def overload(self, count: int, gap: float) -> None:
        """Searches while too much is read ahead: tickets that are cancelled by their search, and ones that go on."""
        print("\nlookahead x8, each search cold: p95 in ms\n")
        for name, cancelled in (("tickets end with their search", True), ("tickets go on", False)):
            times, running = [], []
            for number in range(count):
                first, query = self.pair(number, 0.67)
                self.drop()
                ticket = self.index.lookahead(first, expect=1e9, lists=8 * self.index.probed)
                running.append(ticket)
                time.sleep(gap / 4)
                own = ticket if cancelled else None
                times.append(timed(lambda query=query, own=own: self.index.find(query, K, ticket=own))[0].ms)
            for ticket in running:
                ticket.cancel()
            print(f"| {name} | {quantiles(times, n=20)[-1]:.1f} |")

    def exactness(self, count: int) -> None:
        """Compare results with plain FAISS: the file in the cache or not, tickets used, cancelled, or none."""
        rng, differing = random.Random(5), 0
        for number in range(count):
            first, query = self.pair(number, rng.uniform(0.3, 0.95))
            ticket = self.index.lookahead(first, expect=rng.choice((0, 1e9))) if rng.random() < 0.1 else None
            if ticket and rng.random() < 0.5:
                ticket.cancel()
            if rng.random() < 0.01:
                self.drop()
            k, self.index.probed = rng.choice((1, 10, 50)), rng.choice((1, 8, 32))
            self.plain.nprobe = self.index.probed
            found = self.index.find(query, k, ticket=ticket)
            differing += not (found.exact and _same(found.matches, self.plain.search(query[None], k)))
        print(f"{count} queries, {differing} results that differ")

    def pair(self, number: int, cosine: float) -> tuple[Floats, Floats]:
        """What was asked, and what became of it: a vector near one of ours, and one at this cosine from it."""
        rng = np.random.default_rng(number)
        query = unit(self.vectors[rng.integers(len(self.vectors))] + 0.3 * unit(rng.normal(size=DIMENSIONS)))
        other = rng.normal(size=DIMENSIONS)
        other = unit(other - (other @ query) * query)
        return unit(cosine * query + (1 - cosine**2) ** 0.5 * other), query

    def ticket(self, first: Floats, query: Floats, ahead: int, anchors: tuple[float, ...], gap: float) -> Ticket:
        """A lookahead that had its time, fed with vectors on the way from the first to the query."""
        began = time.perf_counter()
        ticket = self.index.lookahead(first, expect=gap, lists=ahead * self.index.probed)
        for at, share in enumerate(anchors, start=1):
            time.sleep(gap * at / (len(anchors) + 2))
            ticket.feed(unit((1 - share) * first + share * query))
        time.sleep(max(0.0, gap - (time.perf_counter() - began)))
        return ticket

    def on_demand(self, query: Floats) -> Took:
        """Time to read all vectors of the clusters and score them: an index on disk without codes."""

        def scan() -> None:
            for number in self.segment.nearest(query, self.index.probed).tolist():
                offset, length = self.segment.span(number)
                np.frombuffer(self.segment._read(offset, length), dtype="<f4").reshape(-1, DIMENSIONS) @ query

        return timed(scan)[0]

    def drop(self) -> None:
        """Put the vectors' file out of the page cache."""
        handle = os.open(self.segment.folder / ROWS, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


class Took(NamedTuple):
    """Milliseconds on the clock, and of the processor in this thread."""

    ms: float
    cpu: float


def timed(search: Callable[[], Any]) -> tuple[Took, Any]:
    """What a search took, and what it found."""
    began, used = time.perf_counter(), time.thread_time()
    found = search()
    return Took(1000 * (time.perf_counter() - began), 1000 * (time.thread_time() - used)), found


def _median(times: Sequence[Took]) -> Took:
    return Took(median(one.ms for one in times), median(one.cpu for one in times))


def _same(matches: object, expected: tuple[Floats, NDArray[np.int64]]) -> bool:
    scores, rows = expected[0][0], expected[1][0]
    found = {match.id: match.score for match in matches}  # type: ignore[attr-defined]
    there = rows >= 0
    if len(found) != there.sum() or not np.allclose(sorted(found.values()), sorted(scores[there]), atol=1e-5):
        return False
    least = scores[there].min(initial=np.inf) + 2e-5  # those that tie with the last one may be others
    return all(f"v{row}" in found for row, score in zip(rows[there], scores[there], strict=True) if score > least)


def unit(vectors: NDArray[np.float64] | Floats) -> Floats:
    """Vectors, or one, of length 1."""
    made: Floats = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return made


if __name__ == "__main__":
    main()
