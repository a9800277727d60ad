"""Many searches of the index on disk together, and searches while a compaction goes on.

    python -m bench.tiered_together --cache DIR [--count 300000] [--queries 60] [--rounds 5]

The vectors and the index are those of `bench.tiered`; it is changed: keep DIR for this. Three tables. Batches: the same
queries one by one and in `find_many`, the file warm or put out of the page cache before the first of them, in turns; of
each batch half are near one another, as one tenant's are. Compaction: one search after another, with a pause, before a
compaction in another thread, during it by its stage, and after it; an eighth of the vectors have changed a little since
the last one, as when the index begins to compact by itself, so searches look through those in memory, too, until it is
done. Erasing: seconds until vectors are off the disk. Ratios are of one run.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.tiered import Bench, K, made, opened, timed, unit
from ctxmem.retrieval.tiered.hits import Batch, Hits

Floats = NDArray[np.float32]

SIZES = (2, 8, 32, 128)
"""Queries of a batch."""
NEW = 8
"""One in so many vectors has changed since the last compaction."""
PAUSE = 0.005
"""Seconds between searches."""
BEFORE, AFTER = "before", "after"


def main() -> None:
    """Build what is not there, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300_000)
    parser.add_argument("--lists", type=int, default=2048)
    parser.add_argument("--probed", type=int, default=32)
    parser.add_argument("--queries", type=int, default=300, help="searches before and after a compaction")
    parser.add_argument("--rounds", type=int, default=5, help="of batches; compactions are half as many")
    asked = parser.parse_args()
    faiss.omp_set_num_threads(1)
    vectors = made(asked.cache, asked.count)
    bench = Bench(opened(asked.cache, vectors, asked.lists, asked.probed), vectors, asked.lists)
    batches(bench, asked.rounds)
    compactions(bench, asked.queries, (asked.rounds + 1) // 2)
    erasing(bench)
    bench.index.close()


@dataclass(slots=True)
class Batched:
    """Times of one size of batch by way, in ms: all queries on the clock, and of the processor."""

    clock: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def ratio(self, way: str, base: str) -> str:
        """Of medians, on the clock."""
        return f"{median(self.clock[way]) / median(self.clock[base]):.2f}"


def batches(bench: Bench, rounds: int) -> None:
    """Searches one by one and together, warm and cold."""
    index = bench.index
    print("\nbatches: ms for a query\n")
    print(
        "| queries | warm, one by one | together | ratio | of the processor | cold, one by one | together | ratio |",
        end="",
    )
    print(" clusters searched | different ones | vectors looked at | read |\n" + "|---" * 12 + "|")
    for size in SIZES:
        took = Batched()
        for turn in range(rounds):
            queries = mixed(bench, size, turn)
            ways: dict[str, Callable[[], Any]] = {
                "alone": lambda queries=queries: [index.find(query, K) for query in queries],
                "together": lambda queries=queries: index.find_many(queries, K),
            }
            found: dict[str, Any] = {}
            for state in ("warm", "cold"):
                for way in list(ways)[:: 1 if turn % 2 else -1]:
                    bench.drop() if state == "cold" else ways[way]()
                    one, found[way] = timed(ways[way])
                    took.clock[f"{state} {way}"].append(one.ms / size)
                    took.cpu[f"{state} {way}"].append(one.cpu / size)
            same(found["together"], found["alone"])
        told(size, took, found["together"], found["alone"])


def told(size: int, took: Batched, together: Batch, alone: Sequence[Hits]) -> None:
    """One row of the table."""
    cells = [str(size)]
    for state in ("warm", "cold"):
        one, other = f"{state} alone", f"{state} together"
        cells += [f"{median(took.clock[way]):.2f}" for way in (one, other)] + [took.ratio(other, one)]
        if state == "warm":
            cells += [f"{median(took.cpu[other]) / median(took.cpu[one]):.2f}"]
    cells += [str(sum(hits.lists for hits in together.hits)), str(together.lists)]
    cells += [str(sum(hits.rows_read for hits in alone)), str(together.rows_read)]
    print("| " + " | ".join(cells) + " |", flush=True)


def mixed(bench: Bench, size: int, turn: int) -> Floats:
    """(size, dimensions) queries, half of them near one another."""
    first = 1000 * turn
    near = [bench.pair(first, 0.9)[0] for _ in range(size // 2)]
    apart = (bench.pair(first + number, 0.9)[1] for number in range(size - len(near)))
    queries = np.array([*near, *apart])
    return unit(queries + 0.2 * unit(np.random.default_rng(turn).normal(size=queries.shape)))


def same(together: Batch, alone: Sequence[Hits]) -> None:
    """See that both ways found the same."""
    for hits, other in zip(together.hits, alone, strict=True):
        assert np.allclose([m.score for m in hits.matches], [m.score for m in other.matches], atol=1e-5)


def compactions(bench: Bench, count: int, rounds: int) -> None:
    """Searches before, during and after compactions; the file of the vectors is in the page cache."""
    index, vectors = bench.index, bench.vectors
    took: dict[str, list[float]] = defaultdict(list)
    seconds = []
    for turn in range(rounds):
        new = np.arange(turn, len(vectors), NEW)
        noise = np.random.default_rng(turn).normal(size=(len(new), vectors.shape[1]))
        index.add([f"v{number}" for number in new], unit(vectors[new] + 0.1 * unit(noise)))
        queries = [bench.pair(100_000 * (turn + 1) + number, 0.9)[1] for number in range(count)]
        for query in queries:
            index.find(query, K)  # warm
        took[BEFORE] += [searched(index.find, query) for query in queries]
        seconds.append(during(bench, queries, took))
        for query in queries:
            index.find(query, K)
        took[AFTER] += [searched(index.find, query) for query in queries]
    print(f"\ncompaction of {len(vectors)} vectors, {len(vectors) // NEW} of them new: {median(seconds):.1f} s; ms\n")
    print("| searches | how many | median | p95 | p99 | most | median, ratio | p95, ratio |\n" + "|---" * 8 + "|")
    whole = [ms for stage, some in took.items() if stage not in (BEFORE, AFTER) for ms in some]
    base = spread(took[BEFORE])
    for name, times in (BEFORE, took[BEFORE]), ("during", whole), *list(took.items())[1:]:
        middle, late, last = spread(times)
        row = (
            f"{middle:.2f} | {late:.2f} | {last:.2f} | {max(times):.1f} | {middle / base[0]:.2f} | {late / base[1]:.2f}"
        )
        print(f"| {name} | {len(times)} | {row} |", flush=True)


def during(bench: Bench, queries: Sequence[Floats], took: dict[str, list[float]]) -> float:
    """Search as long as a compaction goes on in another thread; returns its seconds."""
    stage = ["begin"]

    def reached(name: str, share: float) -> None:
        stage[0] = f"during: {name}" if share < 1 else stage[0]

    began, number = time.perf_counter(), 0
    work = partial(bench.index.compact, lists=bench.segment.manifest.lists, progress=reached)
    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        at = stage[0]
        took[at].append(searched(bench.index.find, queries[number % len(queries)]))
        number += 1
    thread.join()
    assert bench.index.segment is not None
    bench.segment = bench.index.segment
    return time.perf_counter() - began


def searched(find: Callable[[Floats, int], Hits], query: Floats) -> float:
    """Milliseconds of a search, after a pause."""
    time.sleep(PAUSE)
    return timed(lambda: find(query, K))[0].ms


def spread(times: Sequence[float]) -> tuple[float, float, float]:
    """Median, p95 and p99."""
    parts = quantiles(times, n=100) if len(times) > 1 else [*times] * 99
    return median(times), parts[94], parts[98]


def erasing(bench: Bench) -> None:
    """Seconds until vectors are off the disk, the first that still are there."""
    left = (f"v{number}" for number in range(len(bench.segment)))
    left = (name for name in left if bench.index.vectors([name]).any())
    print()
    for count in (1, 1000):
        names = list(islice(left, count))
        took, gone = timed(lambda names=names: bench.index.erase(names))
        print(f"{gone} of {len(bench.segment)} vectors erased in {took.ms / 1000:.1f} s")
        assert not bench.index.vectors(names).any()


if __name__ == "__main__":
    main()
