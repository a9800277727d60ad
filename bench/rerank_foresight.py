"""Fits the foresights of the shipped reranker again: `python -m bench.rerank_foresight OUT [--queries 1600]`.

On training queries of NQ, HotpotQA, SQuAD and SciFact, but the first of each, on which `bench.rerank` calibrates; a
query beside twelve of BM25's best twenty. Everything else of the weights stays, and so do the scores.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench.rerank import Asked, asked
from ctxmem.lm.rerank.foresight import Foreseeing
from ctxmem.lm.rerank.shipped import SHIPPED, InteractionModel

SETS = ("nq", "hotpotqa", "squad", "scifact")
CALIBRATED_ON = 60
"""The first training queries of a set, left to `bench.rerank`."""
READ = 140
"""Tokens of a document that are read."""


def rows(queries: int) -> Iterator[Asked]:
    """Queries with their candidates, of all sets in turn."""
    rng = random.Random(5)
    sides = [asked(name, "train", CALIBRATED_ON + queries, 20)[CALIBRATED_ON:] for name in SETS]
    drawn = [rng.sample(side, len(side)) for side in sides]
    for query, texts in [row for row in chain(*zip_longest(*drawn)) if row is not None][:queries]:
        yield query, rng.sample(texts, 12)


def main() -> None:
    """Fit, and write the weights with what was fitted."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--queries", type=int, default=1600)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    model = InteractionModel(longest=READ)
    fit = Foreseeing(model.model)
    for query, texts in rows(chosen.queries):
        encoded = model.encode(query, texts)
        fit.add(encoded.query, encoded.rows)
        if fit.queries % 100 == 0:
            print(fit.queries, flush=True)
    fit.settle()
    weights = load_file(SHIPPED)
    made = {name: value for name, value in model.model.state_dict().items() if name.startswith("foresights.")}
    with safe_open(SHIPPED, "pt") as file:
        card = file.metadata() or {}
    card["foresights"] = f"{fit.queries} training queries of {', '.join(SETS)}"
    save_file(weights | {name: value.half() for name, value in made.items()}, chosen.out, metadata=card)


if __name__ == "__main__":
    main()
