"""Searches that ask a model first: what they find, and what looking ahead while the model writes saves.

    python -m bench.pipelines --cache DIR [--sets hotpotqa musique nq] [--questions 30]
    python -m bench.pipelines --cache DIR --ahead [--questions 30] [--copies 0] [--probed 8 ...]

The model is SmolLM2-135M-Instruct, greedy, in this process, on one thread. Without `--ahead`: share of a question's
gold passages among the first 5 and 10 finds of each pipeline, as the library searches (hybrid), beside the plain search
of the same questions. Intervals are 95 % by bootstrap over the questions; a difference is of pairs. With `--ahead`: see
`bench.ahead`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import get_args

import numpy as np

from bench import ahead
from bench.local_models import Kept, Writer
from bench.pruning.measures import mean
from bench.rerank_sets import RankingSet
from bench.retrieval import chosen, recall
from ctxmem.lm.encoder import embedder_named
from ctxmem.ports import Embedder
from ctxmem.retrieval.library import Library, Query, Source
from ctxmem.retrieval.pipelines import Pipeline, search
from ctxmem.stores.sql import SqlStore

SETS = {"hotpotqa": "test", "musique": None, "nq": "test"}
"""Each set with the split whose questions are asked; None for all of them."""
PIPELINES: tuple[Pipeline, ...] = get_args(Pipeline)
TENANT, NAMESPACE = "bench", "passages"
DEPTHS = (5, 10)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question through one pipeline.

    Attributes:
        found: by depth, share of the gold passages among so many finds.
        tokens: that the model wrote.
        seconds: of all of it.
    """

    found: dict[int, float]
    tokens: int
    seconds: float


def main() -> None:
    """Print a table for each set, or those of `bench.ahead`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of vectors")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--questions", type=int, default=30, help="of a set; with --ahead, in all")
    parser.add_argument("--ahead", action="store_true", help="measure lookahead instead of what is found")
    parser.add_argument("--copies", type=int, default=0, help="with --ahead: copies of each vector, with noise")
    parser.add_argument("--lists", type=int, help="with --ahead: clusters of the index")
    parser.add_argument("--probed", type=int, nargs="+", default=[8], help="with --ahead: clusters of a search")
    asked = parser.parse_args()
    embedder, writer = Kept(embedder_named("minilm"), asked.cache), Writer()
    sets = [chosen(name, SETS[name], asked.questions) for name in asked.sets]
    if asked.ahead:
        texts = [text for data in sets for text in data.docs.values()]
        share = -(-asked.questions // len(sets))
        questions = [text for data in sets for text in list(data.queries.values())[:share]]
        vectors = np.concatenate([embedder.embed(texts[at : at + 256]) for at in range(0, len(texts), 256)])
        ahead.measure(questions, vectors, (embedder, writer), ahead.Size(asked.copies, asked.lists, asked.probed))
        return
    for data in sets:
        with tempfile.TemporaryDirectory() as folder:
            store = SqlStore(f"sqlite:///{folder}/documents.db")
            try:
                told(data, asked_all(data, filled(store, embedder, data), writer))
            finally:
                store.close()


def filled(store: SqlStore, embedder: Embedder, data: RankingSet) -> Library:
    """A library of the set's documents."""
    library = Library(store.documents, embedder)
    library.ingest(TENANT, NAMESPACE, [Source(text, id=key, kind="text") for key, text in data.docs.items()])
    return library


def asked_all(data: RankingSet, library: Library, writer: Writer) -> dict[Pipeline, list[Asked]]:
    """Every question through every pipeline."""
    made: dict[Pipeline, list[Asked]] = defaultdict(list)
    for key, question in data.queries.items():
        for pipeline in PIPELINES:
            began, before = time.perf_counter(), writer.tokens
            query = Query(question, NAMESPACE, k=2 * max(DEPTHS))  # a long passage is more than one find
            done = search(library, TENANT, query, writer, pipeline=pipeline, timeout_s=600)
            ranked = list(dict.fromkeys(one.document_id for one in done.found))
            shares = {depth: recall(ranked, data.gold[key], depth) for depth in DEPTHS}
            made[pipeline].append(Asked(shares, writer.tokens - before, time.perf_counter() - began))
    return made


def told(data: RankingSet, made: dict[Pipeline, list[Asked]]) -> None:
    """Print one set's table."""
    print(f"\n{data.name}: {len(data.queries)} questions, {len(data.docs)} passages; recall in %\n")
    heads = [head for depth in DEPTHS for head in (f"recall@{depth}", "against plain")]
    print("| pipeline | " + " | ".join(heads) + " | tokens written | s |\n|" + "---|" * (len(heads) + 3))
    for pipeline, rows in made.items():
        cells = []
        for depth in DEPTHS:
            own = [row.found[depth] for row in rows]
            plain = [row.found[depth] for row in made["plain"]]
            cells += [interval(own), interval([one - other for one, other in zip(own, plain, strict=True)])]
        tokens, seconds = fmean(row.tokens for row in rows), fmean(row.seconds for row in rows)
        print(
            f"| {pipeline} | " + " | ".join(cells) + f" | {tokens:.0f} | {seconds:.1f} |",
            flush=True,
        )


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval."""
    return str(mean(list(enumerate(values))))


if __name__ == "__main__":
    main()
