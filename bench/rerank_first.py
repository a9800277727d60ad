"""First stages for `bench.rerank`: BM25, the MiniLM bi-encoder, the two fused; and training rows mined from them."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix
from transformers import AutoModel

from bench.rerank_chats import CHATS, named
from bench.rerank_sets import RankingSet, lines
from ctxmem import models
from ctxmem.lm.text import Tokenizer

TRAINED_ON = ("nq", "hotpotqa", "squad", "scifact", *CHATS)
TWICE = ("hotpotqa", *CHATS)
"""Sets with few rows: each is there twice."""
DEV = 30
"""Most dev rows of a set."""
K1, B = 0.9, 0.4


def words(text: str) -> list[str]:
    return [word[:-1] if word.endswith("s") and len(word) > 3 else word for word in re.findall(r"\w+", text.lower())]


class Bm25:
    """BM25 (k1 0.9, b 0.4) as one sparse matrix: (documents, terms)."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(words(text)) for text in texts]
        self.terms = {term: place for place, term in enumerate(sorted({term for one in counts for term in one}))}
        sizes = np.array([sum(one.values()) for one in counts], dtype=np.float64)
        spread = K1 * (1 - B + B * sizes / max(sizes.mean(), 1))
        found = Counter(term for one in counts for term in one)
        rows, columns, values = [], [], []
        for row, one in enumerate(counts):
            for term, count in one.items():
                idf = np.log(1 + (len(texts) - found[term] + 0.5) / (found[term] + 0.5))
                rows.append(row)
                columns.append(self.terms[term])
                values.append(idf * count * (K1 + 1) / (count + spread[row]))
        self.matrix = csr_matrix((values, (rows, columns)), shape=(len(texts), len(self.terms)), dtype=np.float32)

    def scores(self, query: str) -> np.ndarray:
        """(documents,) scores."""
        places = [self.terms[term] for term in words(query) if term in self.terms]
        vector = np.zeros(len(self.terms), dtype=np.float32)
        np.add.at(vector, places, 1.0)
        return self.matrix @ vector


class BiEncoder:
    """all-MiniLM-L6-v2: mean of the token states, unit length. Vectors are kept in a folder by content."""

    def __init__(self, cache: Path) -> None:
        folder = models.locate("minilm")
        self.model = AutoModel.from_pretrained(folder).eval()
        self.tokenizer = Tokenizer.load(folder)
        self.cache = cache

    def vectors(self, texts: Sequence[str], *, longest: int = 254) -> np.ndarray:
        """(texts, 384) unit vectors."""
        key = hashlib.sha256("\0".join([str(longest), *texts]).encode()).hexdigest()[:24]
        path = self.cache / f"{key}.npy"
        if not path.exists():
            np.save(path, self._encode(texts, longest))
        return np.load(path)

    def _encode(self, texts: Sequence[str], longest: int) -> np.ndarray:
        ids = [(101, *one.ids[:longest], 102) for one in self.tokenizer.encode(texts)]
        made = np.zeros((len(ids), 384), dtype=np.float32)
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        for start in range(0, len(order), 32):
            places = order[start : start + 32]
            size = max(len(ids[place]) for place in places)
            batch = torch.tensor([[*ids[place], *[0] * (size - len(ids[place]))] for place in places])
            mask = torch.tensor([[1] * len(ids[place]) + [0] * (size - len(ids[place])) for place in places])
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                states = self.model(batch, attention_mask=mask).last_hidden_state.float()
            pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            made[places] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return made


def standard(scores: np.ndarray) -> np.ndarray:
    """Scores with mean 0 and deviation 1."""
    return (scores - scores.mean()) / (scores.std() + 1e-6)


class FirstStage:
    """BM25, dense and their weighted sum over one set."""

    def __init__(self, data: RankingSet, encoder: BiEncoder) -> None:
        self.data, self.ids = data, list(data.docs)
        self.place = {key: place for place, key in enumerate(self.ids)}
        self.bm25 = Bm25(list(data.docs.values()))
        self.rows = encoder.vectors(list(data.docs.values()))
        keys = list(data.queries)
        self.asked = dict(zip(keys, encoder.vectors(list(data.queries.values())), strict=True))

    def scores(self, key: str) -> dict[str, np.ndarray]:
        """By first stage, a score of each document the query may rank; its places under `pool`."""
        pool = self.data.pool.get(key)
        places = np.arange(len(self.ids)) if pool is None else np.array([self.place[one] for one in pool])
        dense = self.rows[places] @ self.asked[key]
        sparse = self.bm25.scores(self.data.queries[key])[places]
        top = np.argsort(-dense)[:200], np.argsort(-sparse)[:200]
        shared = np.union1d(*top)
        hybrid = np.full(len(places), -1e9)
        hybrid[shared] = standard(dense[shared]) + standard(sparse[shared])
        return {"pool": places, "bi-encoder": dense, "bm25": sparse, "hybrid": hybrid}


def training_rows(data: RankingSet, stage: FirstStage, split: str) -> list[dict[str, object]]:
    """Queries with what is right and the 40 most misleading documents of both first stages."""
    made = []
    for key, query in data.part(split).queries.items():
        scores = stage.scores(key)
        best = [np.argsort(-scores[side])[:25] for side in ("bi-encoder", "bm25")]
        mixed = dict.fromkeys(int(place) for pair in zip(*best, strict=True) for place in pair)
        right = [one for one, grade in data.gold[key].items() if grade > 0]
        wrong = [stage.ids[scores["pool"][place]] for place in mixed]
        negatives = [data.docs[one] for one in wrong if one not in data.gold[key]][:40]
        positives = [data.docs[one] for one in right if one in data.docs]
        made.append({"set": data.name, "query": query, "positives": positives, "negatives": negatives})
    return made


def cloze_rows(root: Path, count: int, seed: int) -> list[dict[str, object]]:
    """Sentences of wiki2 paragraphs as queries for the rest of their paragraph (inverse cloze task)."""
    rng = random.Random(seed)
    rows = [row for row in lines(root / "wiki2_corpus/open/corpus.jsonl") if len(row["text"].split()) > 40]
    texts = [f"{row['title']}. {row['text']}" for row in rows]
    ranked = Bm25(texts)
    made: list[dict[str, object]] = []
    for place in rng.sample(range(len(rows)), min(count, len(rows))):
        cut = re.split(r"(?<=[.!?])\s+", rows[place]["text"])
        query = rng.choice([one for one in cut if 5 < len(one.split()) < 40] or cut)
        rest = texts[place].replace(query, " ")
        best = np.argsort(-ranked.scores(query))[:30]
        wrong = [texts[one] for one in best if one != place]
        made.append({"set": "wiki2", "query": query, "positives": [rest], "negatives": wrong})
    return made


def main() -> None:
    """Write `train.jsonl` and `dev.jsonl` for `ctxmem train reranker`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(chosen.threads)
    root, encoder = Path(os.environ["CTXMEM_DATA"]), BiEncoder(chosen.folder)
    made: dict[str, list[dict[str, object]]] = {"train": [], "dev": []}
    for name in TRAINED_ON:
        data = named(name)
        stage = FirstStage(data, encoder)
        made["train"] += training_rows(data, stage, "train") * (2 if name in TWICE else 1)
        dev = training_rows(data, stage, "dev")
        made["dev"] += random.Random(1).sample(dev, min(DEV, len(dev)))
        print(name, {split: len(rows) for split, rows in made.items()}, flush=True)
    made["train"] += cloze_rows(root, 1000, 7)
    for split, rows in made.items():
        (chosen.folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
