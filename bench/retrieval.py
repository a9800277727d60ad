"""How well passages are found: `python -m bench.retrieval --cache DIR`, `... --choose` for the weights.

Every row is one run over the same queries: BM25, vectors and both fused, as the library does it, beside plain FAISS
over what sentence-transformers makes of the same model. The weight of the vectors was chosen (`--choose`) on the
training queries of NQ, HotpotQA, SciFact and SQuAD, none of which is in the table. Those of the reranker are from dev
queries (`--choose --rerank`) and, in chats, from LoCoMo's first two, which are in the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import log2
from pathlib import Path
from statistics import fmean
from typing import Any

import faiss
import numpy as np
import torch

from bench.local_models import Kept
from bench.pruning.kept import KeptResults
from bench.rerank_chats import named
from bench.rerank_sets import RankingSet
from ctxmem.lm.encoder import embedder_named
from ctxmem.ports import Embedder, Reranker
from ctxmem.retrieval.fuse import IN_CHATS, RERANKED, read_again
from ctxmem.retrieval.hybrid import Hybrid
from ctxmem.retrieval.links import followed, names
from ctxmem.retrieval.search import READ_AGAIN

TABLE = ("scifact", "cranfield", "hotpotqa", "musique", "nq", "locomo")
CHOSEN_ON = ("nq", "hotpotqa", "scifact", "squad")
DEV = ("nq", "scifact", "squad", "beam", "qmsum")
"""Sets with dev queries: HotpotQA has none, and of MTRAG there are eleven."""
GRID = tuple(place / 10 for place in range(11))
DEPTH = 50
CHATS = ("locomo", "beam", "qmsum")
"""Sets whose documents are turns of talks."""
WHOLE = ("cranfield", "locomo", "musique")
"""Sets that no part of is for learning: all of their queries may be asked."""

Rank = Callable[[str], Sequence[str]]
"""From a query's key to documents, best first."""
Metric = Callable[[Sequence[str], Mapping[str, float]], float]


def ndcg(ranked: Sequence[str], gold: Mapping[str, float], k: int = 10) -> float:
    """Normalised discounted cumulative gain (Jarvelin and Kekalainen 2002), gains as in trec_eval."""
    gained = sum(gold.get(one, 0.0) / log2(place + 2) for place, one in enumerate(ranked[:k]))
    best = sum(grade / log2(place + 2) for place, grade in enumerate(sorted(gold.values(), reverse=True)[:k]))
    return gained / best if best else 0.0


def every(ranked: Sequence[str], gold: Mapping[str, float], k: int = 10) -> float:
    """Whether all gold documents are among the first k."""
    return float(set(gold) <= set(ranked[:k]))


def recall(ranked: Sequence[str], gold: Mapping[str, float], k: int = 10) -> float:
    """Share of the gold documents among the first k."""
    return len(set(gold) & set(ranked[:k])) / len(gold)


METRICS: dict[str, dict[str, Metric]] = {
    "scifact": {"nDCG@10": ndcg},
    "squad": {"nDCG@10": ndcg},
    "beam": {"nDCG@10": ndcg},
    "qmsum": {"nDCG@10": ndcg},
    "cranfield": {"nDCG@10": ndcg},
    "hotpotqa": {"all@10": every},
    "musique": {"all@10": every},
    "nq": {f"recall@{k}": partial(recall, k=k) for k in (1, 5, 10)},
}


def under(budget: int, sizes: Mapping[str, int]) -> Metric:
    """Share of the evidence that fits into a budget of tokens when the best are taken as long as they fit."""

    def fits(ranked: Sequence[str], gold: Mapping[str, float]) -> float:
        left, kept = budget, set()
        for one in ranked:
            if sizes[one] <= left:
                left -= sizes[one]
                kept.add(one)
        return len(kept & set(gold)) / len(gold)

    return fits


@dataclass(slots=True)
class Stage:
    """One set, ready to be searched: a corpus, or one for each chat."""

    data: RankingSet
    shelves: dict[tuple[str, ...], Hybrid]
    asked: dict[str, Any]
    rows: dict[str, Any]

    @classmethod
    def of(cls, data: RankingSet, embedder: Embedder) -> Stage:
        """Index the set's documents."""
        rows = dict(zip(data.docs, embedder.embed(list(data.docs.values())), strict=True))
        asked = dict(zip(data.queries, embedder.embed(list(data.queries.values())), strict=True))
        stage = cls(data, {}, asked, rows)
        for key in data.queries:
            pool = stage.pool(key)
            if pool not in stage.shelves:
                shelf = stage.shelves[pool] = Hybrid(embedder)
                shelf.add({id: data.docs[id] for id in pool}, np.stack([rows[id] for id in pool]))
        return stage

    def pool(self, key: str) -> tuple[str, ...]:
        """What the query may find."""
        return tuple(self.data.pool.get(key) or self.data.docs)

    def rank(self, key: str, mode: str, k: int = DEPTH) -> list[str]:
        """By the library's own search."""
        shelf = self.shelves[self.pool(key)]
        found = shelf.search(self.data.queries[key], k, mode=mode, vector=self.asked[key])  # type: ignore[arg-type]
        return [match.id for match in found]

    def weighed(self, key: str, dense: float) -> list[str]:
        """Fused with another weight."""
        shelf = self.shelves[self.pool(key)]
        shelf.weight = dense
        return self.rank(key, "hybrid")

    def again(
        self, key: str, reranker: Reranker | None, weight: float | None = None, *, links: bool = True
    ) -> list[str]:
        """The hybrid's best, read again by the reranker if there is one, and with the names they say followed."""
        shelf, query = self.shelves[self.pool(key)], self.data.queries[key]
        found = shelf.search(query, READ_AGAIN, vector=self.asked[key])
        texts = {match.id: self.data.docs[match.id] for match in found}
        if reranker is not None:
            read = reranker.score(query, list(texts.values()))
            weight = (IN_CHATS if self.data.name in CHATS else RERANKED) if weight is None else weight
            found = read_again({match.id: match.score for match in found}, read, DEPTH, weight=weight)
        if links:
            found = followed(found, texts, {id: names(self.data.titles.get(id, "")) for id in texts})
        return [match.id for match in found]


def plain(stage: Stage, texts: Callable[[Sequence[str]], Any]) -> Rank:
    """FAISS over what sentence-transformers makes, as its documentation shows."""
    indexes: dict[tuple[str, ...], Any] = {}
    asked = dict(zip(stage.data.queries, texts(list(stage.data.queries.values())), strict=True))
    rows = dict(zip(stage.data.docs, texts(list(stage.data.docs.values())), strict=True))

    def rank(key: str) -> Sequence[str]:
        pool = stage.pool(key)
        if pool not in indexes:
            indexes[pool] = faiss.IndexFlatIP(len(asked[key]))
            indexes[pool].add(np.stack([rows[id] for id in pool]))
        _, places = indexes[pool].search(asked[key][None], min(DEPTH, len(pool)))
        return [pool[place] for place in places[0]]

    return rank


def peer(folder: Path) -> Callable[[Sequence[str]], Any]:
    """Vectors by sentence-transformers, kept in a folder; the peer is installed by hand."""
    from ctxmem.models import locate

    model = import_module("sentence_transformers").SentenceTransformer(str(locate("minilm")), device="cpu")

    class Peer:
        name, dimensions = "sentence-transformers", 384

        def embed(self, texts: Sequence[str], *, query: bool = False) -> Any:
            return model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)

    return Kept(Peer(), folder).embed


def chosen(name: str, split: str | None, most: int) -> RankingSet:
    """A set and the queries that are asked: of one split, or all; every n-th when there are more than `most`."""
    data = named(name)
    part = data if split is None else data.part(split)
    keys = list(part.queries)[:: max(1, -(-len(part.queries) // most))]
    return data.asking({key: part.queries[key] for key in keys})


def metrics(stage: Stage) -> dict[str, Metric]:
    """What is measured on a set."""
    if stage.data.name != "locomo":
        return METRICS[stage.data.name]
    from ctxmem.tokens.resolve import counter_for

    ids = list(stage.data.docs)
    sizes = dict(zip(ids, counter_for("smollm2").texts(list(stage.data.docs.values())), strict=True))
    return {f"evidence in {budget}": under(budget, sizes) for budget in (512, 1024, 2048)}


def score(stage: Stage, rank: Rank, measured: Mapping[str, Metric]) -> dict[str, float]:
    """Means over the set's queries."""
    ranked = {key: rank(key) for key in stage.data.queries}
    gold = stage.data.gold
    return {name: fmean(metric(ranked[key], gold[key]) for key in ranked) for name, metric in measured.items()}


def systems(
    stage: Stage, texts: Callable[[Sequence[str]], Any] | None, rerank: Reranker | None
) -> Iterator[tuple[str, Rank]]:
    """What is compared."""
    if texts is not None:
        yield "FAISS + sentence-transformers", plain(stage, texts)
    for name, mode in (("BM25", "words"), ("dense", "dense"), ("hybrid", "hybrid")):
        yield name, partial(stage.rank, mode=mode)
    yield "hybrid + links", partial(stage.again, reranker=None)
    if rerank is not None:
        yield "hybrid + reranker", partial(stage.again, reranker=rerank, links=False)
        yield "hybrid + rerank", partial(stage.again, reranker=rerank)


def choose(embedder: Embedder, most: int, reranker: Reranker | None) -> None:
    """Print what each weight gives: of the vectors on training queries, or of the reranker on dev queries."""
    totals: dict[float, list[float]] = {weight: [] for weight in GRID}
    for name in CHOSEN_ON if reranker is None else DEV:
        stage = Stage.of(chosen(name, "train" if reranker is None else "dev", most), embedder)
        first = "recall@5" if name == "nq" and reranker is None else next(iter(METRICS[name]))
        measured = {"first": METRICS[name][first]}
        line = []
        for weight in GRID:
            weighed = partial(stage.weighed, dense=weight)
            rank = weighed if reranker is None else partial(stage.again, reranker=reranker, weight=weight)
            value = score(stage, rank, measured)["first"]
            totals[weight].append(value)
            line.append(f"{value:.3f}")
        print(f"{name:10} n={len(stage.data.queries):4} " + " ".join(line), flush=True)
    print("mean" + " " * 12 + " ".join(f"{fmean(totals[weight]):.3f}" for weight in GRID))


def main() -> None:
    """Print the table, or what the weights give."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder of vectors")
    parser.add_argument("--sets", nargs="*", default=list(TABLE))
    parser.add_argument("--queries", type=int, default=400, help="most queries of a set")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--plain", action="store_true", help="also sentence-transformers and FAISS")
    parser.add_argument("--rerank", action="store_true", help="also the shipped reranker")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    embedder = Kept(embedder_named("minilm"), asked.cache)
    reranker: Any = None
    if asked.rerank:
        from ctxmem.lm.rerank.reranker import Reranker as Shipped

        reranker = Shipped.load(cache=KeptResults(asked.cache / "readings.db"))
    if asked.choose:
        choose(embedder, asked.queries, reranker)
        return
    texts = peer(asked.cache) if asked.plain else None
    for name in asked.sets:
        stage = Stage.of(chosen(name, None if name in WHOLE else "test", asked.queries), embedder)
        measured = metrics(stage)
        print(f"\n{name}: {len(stage.data.queries)} queries, {len(stage.data.docs)} documents", flush=True)
        for system, rank in systems(stage, texts, reranker):
            found = score(stage, rank, measured)
            print(f"  {system:30}" + "  ".join(f"{key} {value:.3f}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
