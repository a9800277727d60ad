"""Lookahead on real pairs: of the clusters a search looks into, how many were brought in from what was known before.

    python -m bench.lookahead_pairs --data DATA [--paragraphs 250] [--pairs 100] [--lists 64] [--probed 4]

The search is for the sentence that answers a SQuAD question, as a model that drafts an ideal answer (HyDE) would write
it; the ticket is taken for the question, and fed with the first 25, 50 and 75 % of that sentence's words, or with every
four more, as the pipelines do. The index holds the paragraphs of those questions and of Wikipedia. Time and bytes are
without limit: this is about which clusters, not how fast.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from ctxmem.lm.encoder import embedder_named
from ctxmem.ports import Embedder
from ctxmem.retrieval.tiered.index import TieredIndex

Floats = NDArray[np.float32]
PARTS = (0.25, 0.5, 0.75)
EVERY = 4
"""Words between two feeds."""
LONG = 1e9
"""Seconds that a ticket may take: no limit."""


def main() -> None:
    """Embed, build, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CTXMEM_DATA") or "../shared/data"))
    parser.add_argument("--paragraphs", type=int, default=250)
    parser.add_argument("--lists", type=int, default=64)
    parser.add_argument("--probed", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=100)
    asked = parser.parse_args()
    squad = list(articles(asked.data))
    pairs = [pair for text, some in squad for pair in rewritten(text, some)][: asked.pairs]
    texts = [*[text for text, _ in squad], *wikipedia(asked.data, asked.paragraphs)]
    embedder = embedder_named("minilm")
    with tempfile.TemporaryDirectory() as folder:
        index = TieredIndex(Path(folder), embedder.name, embedder.dimensions, probed=asked.probed)
        index.add([str(number) for number in range(len(texts))], embedder.embed(texts))
        index.compact(lists=asked.lists)
        questions, finals = (embedder.embed(list(side), query=True) for side in zip(*pairs, strict=True))
        print(f"{len(texts)} paragraphs in {asked.lists} clusters, {len(pairs)} pairs, {asked.probed} searched")
        print(f"cosine of question and draft: {mean((questions * finals).sum(1).tolist()):.2f}\n")
        print("| lookahead | hit rate | clusters fetched | share of use |\n|---|---|---|---|")
        parts = [[round(part * len(draft.split())) for part in PARTS] for _, draft in pairs]
        often = [range(EVERY, len(draft.split()), EVERY) for _, draft in pairs]
        never: list[list[int]] = [[] for _ in pairs]
        for name, counts, lists in (
            ("question x1", never, asked.probed),
            ("question x2", never, 2 * asked.probed),
            ("question x1, fed at 25, 50, 75 %", parts, asked.probed),
            ("question x1/2, fed every four words", often, -(-asked.probed // 2)),
        ):
            drafts = [[begun(draft, count) for count in some] for (_, draft), some in zip(pairs, counts, strict=True)]
            told(name, index, questions, [*zip(embedded(embedder, drafts), finals, strict=True)], lists)
        index.close()


def embedded(embedder: Embedder, drafts: list[list[str]]) -> Iterator[Floats]:
    """For each pair (drafts, dimensions) vectors."""
    vectors = iter(embedder.embed([text for some in drafts for text in some], query=True))
    for some in drafts:
        yield np.array([next(vectors) for _ in some], dtype=np.float32)


def told(name: str, index: TieredIndex, questions: Floats, drafts: list[tuple[Floats, Floats]], lists: int) -> None:
    """Print one row: tickets for the questions, each fed with some drafts before the search for the final one."""
    hits, fetched = [], []
    for question, (some, final) in zip(questions, drafts, strict=True):
        with index.lookahead(question, expect=LONG, lists=lists) as ticket:
            for draft in some:
                ticket.feed(draft)
            ticket.wait(60)
            found = index.find(final, 10, ticket=ticket)
            hits.append(found.fetched / found.lists)
            fetched.append(len(ticket.fetched))
    print(f"| {name} | {mean(hits):.2f} | {mean(fetched):.1f} | {mean(hits) * index.probed / mean(fetched):.2f} |")


def articles(data: Path) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Paragraphs of SQuAD with their questions and where the answers start."""
    for article in json.loads((data / "squad_xquad_en/open/squad_open.json").read_text())["data"]:
        for paragraph in article["paragraphs"]:
            asked = [(one["question"], one["answers"][0]["answer_start"]) for one in paragraph["qas"] if one["answers"]]
            yield paragraph["context"], asked


def rewritten(text: str, asked: list[tuple[str, int]]) -> Iterator[tuple[str, str]]:
    """Questions, each with the sentence that its answer starts in."""
    for question, start in asked:
        first = text.rfind(". ", 0, start)
        last = text.find(". ", start)
        yield question, text[first + 2 if first >= 0 else 0 : last + 1 if last >= 0 else len(text)]


def begun(draft: str, count: int) -> str:
    """So many words of a draft, one at least."""
    return " ".join(draft.split()[: max(1, count)])


def wikipedia(data: Path, count: int) -> list[str]:
    """The first paragraphs of the corpus."""
    lines = (data / "wiki2_corpus/open/corpus.jsonl").read_text().splitlines()[:count]
    return [row["text"] for row in map(json.loads, lines)]


if __name__ == "__main__":
    main()
