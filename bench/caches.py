"""Time that the shared caches save a search: places of searches and scores of the reranker, in a Valkey of its own.

    python -m bench.caches --cache DIR [--set musique] [--queries 40]

Two processes search one library in SQLite, as two workers of a service do, one thread each. A question is asked of the
first, which finds nothing in the cache; then of the second, which finds what the first one did; then something is
written, which leaves kept places unread, and the second is asked again: the reranker's scores are still there. Each
process has done other searches before, also after the write, so loading is not timed. Ratios are of medians.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Literal

from bench.local_models import Kept
from bench.retrieval import WHOLE, chosen
from ctxmem.lm.encoder import embedder_named
from ctxmem.retrieval.library import Library, Query, Source
from ctxmem.stores.sql import SqlStore
from ctxmem.stores.valkey import EmbeddedValkey

TENANT, NAMESPACE = "bench", "passages"
FIRST, AGAIN, WRITTEN = "first", "again, another process", "again after a write"
K = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """One search in another process.

    Attributes:
        ms: milliseconds.
        cached: whether its places came from the cache.
        remembered: texts whose scores did.
        found: ids of chunks, best first.
    """

    ms: float
    cached: bool
    remembered: int
    found: tuple[str, ...]


_libraries: list[Library] = []


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of vectors")
    parser.add_argument("--set", default="musique")
    parser.add_argument("--queries", type=int, default=40)
    asked = parser.parse_args()
    data = chosen(asked.set, None if asked.set in WHOLE else "test", asked.queries)
    questions = list(data.queries.values())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        store = stack.enter_context(closing(SqlStore(_database(folder))))
        library = Library(store.documents, Kept(embedder_named("minilm"), asked.cache))
        library.ingest(TENANT, NAMESPACE, [Source(text, id=key, kind="text") for key, text in data.docs.items()])
        valkey = EmbeddedValkey(folder / "valkey")
        valkey.start()
        stack.callback(valkey.stop)
        workers = [stack.enter_context(worker(folder, valkey.url)) for _ in range(2)]
        print(f"{asked.set}: {len(questions)} questions, {len(data.docs)} passages")
        measure(library, questions, workers)


def worker(folder: Path, url: str) -> ProcessPoolExecutor:
    """One process with a library."""
    spawned = get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=spawned, initializer=opened, initargs=(_database(folder), url))


def opened(database: str, url: str) -> None:
    """Open the library, in another process."""
    import torch

    from ctxmem.lm.rerank.reranker import Reranker
    from ctxmem.stores.redis import RedisCache

    torch.set_num_threads(1)
    cache = RedisCache(url)
    documents = SqlStore(database).documents
    _libraries.append(Library(documents, embedder_named("minilm"), Reranker.load(cache=cache), cache=cache))


def search(question: str, kind: Literal["plain", "rerank"]) -> Asked:
    """One search, in another process."""
    [library] = _libraries
    began = time.perf_counter()
    results = library.search(TENANT, Query(question, NAMESPACE, k=K, rerank=kind == "rerank"))
    took, stats = time.perf_counter() - began, results.stats
    found = tuple(one.id for one in results.found)
    return Asked(1000 * took, "cached" in stats, int(stats.get("remembered", 0)), found)


def measure(library: Library, questions: list[str], workers: list[ProcessPoolExecutor]) -> None:
    """Ask every question in turn, without the reranker and with it, and print what it took."""
    one, other = workers
    took: dict[tuple[str, str], list[Asked]] = defaultdict(list)
    for number, question in enumerate(questions):
        for kind in ("plain", "rerank") if number % 2 else ("rerank", "plain"):
            for each in workers:
                each.submit(search, f"{kind} {number}: something else", kind).result()
            took[kind, FIRST].append(one.submit(search, question, kind).result())
            took[kind, AGAIN].append(other.submit(search, question, kind).result())
            library.ingest(TENANT, NAMESPACE, [Source(f"Note {number} {kind}", id="note", kind="text")])
            other.submit(search, f"{kind} {number}: something else", kind).result()
            took[kind, WRITTEN].append(other.submit(search, question, kind).result())
    told(took)


def told(took: dict[tuple[str, str], list[Asked]]) -> None:
    """Print the table; see that the same was found."""
    print(
        "\n| search | asked | median ms | p95 | ratio | places from the cache | scores from it, mean |\n"
        + "|---" * 7
        + "|"
    )
    for (kind, when), rows in took.items():
        base = took[kind, FIRST]
        if when != WRITTEN:
            assert [row.found for row in rows] == [row.found for row in base], "the cache changed a result"
        times = [row.ms for row in rows]
        cells = [f"{median(times):.2f}", f"{quantiles(times, n=20)[-1]:.2f}"]
        cells += [f"{median(times) / median(row.ms for row in base):.3f}"]
        cells += [f"{sum(row.cached for row in rows)} of {len(rows)}"]
        cells += [f"{sum(row.remembered for row in rows) / len(rows):.1f}"]
        print(f"| {kind} | {when} | " + " | ".join(cells) + " |", flush=True)


def _database(folder: Path) -> str:
    return f"sqlite:///{folder}/documents.db"


if __name__ == "__main__":
    main()
