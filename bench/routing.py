"""Searches placed by what workers hold: of the clusters that a search looks into, how many its worker held already.

    python -m bench.routing --data DATA [--paragraphs 2000] [--lists 150] [--probed 8] [--room 0.25] [--batch 8]

Two real processes, each with its copy of an index and a `TorchTier` on the processor with room for `--room` of the
vectors; a real Valkey, by which they say what they hold. The index has SQuAD's paragraphs and Wikipedia's; the searches
are SQuAD's questions, each asked once, in a random order, `--batch` at a time. A worker looks ahead for each question,
which brings its clusters in, and searches; clusters are counted before that. This is about which, not how fast.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.lookahead_pairs import LONG, articles, wikipedia
from ctxmem.lm.encoder import embedder_named
from ctxmem.lm.tier import TorchTier
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.retrieval.tiered.routing import Router
from ctxmem.retrieval.tiered.segment import Segment
from ctxmem.stores.redis import RedisCache
from ctxmem.stores.valkey import EmbeddedValkey

Floats = NDArray[np.float32]
Place = Callable[[Sequence[NDArray[np.int64]]], list[str]]
WORKERS = ("one", "two")


def main() -> None:
    """Embed, build, place, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CTXMEM_DATA") or "../shared/data"))
    parser.add_argument("--paragraphs", type=int, default=2000)
    parser.add_argument("--lists", type=int, default=150)
    parser.add_argument("--probed", type=int, default=8)
    parser.add_argument("--room", type=float, default=0.25)
    parser.add_argument("--batch", type=int, default=8)
    asked = parser.parse_args()
    squad = list(articles(asked.data))
    texts = [*[text for text, _ in squad], *wikipedia(asked.data, asked.paragraphs)]
    questions = [question for _, some in squad for question, _ in some]
    random.Random(7).shuffle(questions)
    embedder = embedder_named("minilm")
    vectors, queries = embedder.embed(texts), embedder.embed(questions, query=True)
    print(f"{len(texts)} paragraphs in {asked.lists} clusters, {len(queries)} questions, {asked.probed} searched")
    print(f"two workers, each with room for {asked.room:.0%} of the vectors\n")
    print("| placed | held already | searches by worker |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for worker in WORKERS:
            made(Path(folder) / worker, vectors, asked).close()
        room = int(asked.room * vectors.nbytes)
        for name in ("at random", "in turn", "by what is held"):
            run(name, Path(folder), queries, (room, asked))


def made(folder: Path, vectors: Floats, asked: argparse.Namespace) -> TieredIndex:
    """The index in a folder, the same in each."""
    index = TieredIndex(folder, "minilm", vectors.shape[1], probed=asked.probed)
    index.add([str(number) for number in range(len(vectors))], vectors)
    index.compact(lists=asked.lists)
    return index


def run(name: str, folder: Path, queries: Floats, terms: tuple[int, argparse.Namespace]) -> None:
    """Print one row: new workers, and all questions placed in one way."""
    room, asked = terms
    valkey = EmbeddedValkey(folder / "v")
    valkey.start()
    pipes, processes = {}, []
    context = multiprocessing.get_context("spawn")
    for worker in WORKERS:
        pipes[worker], theirs = context.Pipe()
        options = (worker, folder / worker, valkey.url, room, asked.probed)
        processes.append(context.Process(target=work, args=(theirs, *options)))
        processes[-1].start()
    index = TieredIndex(folder / WORKERS[0], "minilm", queries.shape[1], probed=asked.probed)
    assert index.segment is not None
    with closing(RedisCache(valkey.url)) as cache:
        router = Router(cache, index.segment, WORKERS)
        counts = asked_of(pipes, index.segment, queries, (asked, places(name, router), router))
    for worker, process in zip(WORKERS, processes, strict=True):
        pipes[worker].send(None)
        process.join()
    valkey.stop()
    held = sum(count for count, _ in counts)
    shares = " / ".join(str(sum(worker == one for _, one in counts)) for worker in WORKERS)
    print(f"| {name} | {held / (asked.probed * len(counts)):.3f} | {shares} |", flush=True)


def asked_of(
    pipes: dict[str, Connection],
    segment: Segment,
    queries: Floats,
    terms: tuple[argparse.Namespace, Place, Router],
) -> list[tuple[int, str]]:
    """Of each search how many of its clusters were held, and who did it."""
    asked, place, router = terms
    counts = []
    for start in range(0, len(queries), asked.batch):
        some = queries[start : start + asked.batch]
        chosen = place([segment.nearest(query, asked.probed) for query in some])
        for query, worker in zip(some, chosen, strict=True):
            pipes[worker].send(query)
        counts += [(pipes[worker].recv(), worker) for worker in chosen]
        router.done(chosen)
    return counts


def places(name: str, router: Router) -> Place:
    """A way to place searches."""
    rng = random.Random(5)
    if name == "by what is held":
        return router.place
    if name == "in turn":
        return lambda probes: [WORKERS[number % len(WORKERS)] for number in range(len(probes))]
    return lambda probes: [rng.choice(WORKERS) for _ in probes]


def work(pipe: Connection, worker: str, folder: Path, url: str, *terms: int) -> None:
    """A worker process: counts what it holds of a question's clusters, looks ahead, searches, says what it holds."""
    room, probed = terms
    with closing(RedisCache(url)) as cache:
        first = pipe.recv()
        index = TieredIndex(folder, "minilm", len(first) if first is not None else 1, probed=probed)
        segment = index.segment
        assert segment is not None
        index.hot = tier = TorchTier(room=room)
        router, query = Router(cache, segment, WORKERS), first
        while query is not None:
            count = len(tier.held(segment).intersection(segment.nearest(query, probed).tolist()))
            with index.lookahead(query, expect=LONG, lists=probed) as ticket:
                ticket.wait(60)
                index.find(query, 10, ticket=ticket)
            router.publish(worker, tier.held(segment))
            pipe.send(count)
            query = pipe.recv()
        index.close()


if __name__ == "__main__":
    main()
