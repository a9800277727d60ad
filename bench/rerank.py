"""What the rerank engine costs beside the plain forward of the same model: `python -m bench.rerank`.

Each way runs in a process of its own, in turns; a row is the median over queries. Memory is the peak of the resident
set above what it is once everything is imported, before the model is loaded: of the requests alone (the peak is reset
after loading), and of loading too. Then pruning: calibrated on training queries, asked unseen ones, full and pruned in
turns.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from statistics import fmean, median
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.llama import modeling_llama  # noqa: F401 imports are not part of what loading takes

from bench.rerank_first import Bm25
from bench.rerank_sets import load
from ctxmem.lm.loading import model_folder
from ctxmem.lm.rerank.decoder import ResidentDecoder
from ctxmem.lm.rerank.engine import Options, rank
from ctxmem.lm.rerank.layered import Decoder, pad
from ctxmem.lm.rerank.reranker import Reranker
from ctxmem.lm.rerank.shipped import InteractionModel
from ctxmem.lm.text import Tokenizer
from ctxmem.models import locate
from ctxmem.retrieval.pruning import Calibrated, Run, best_of, calibrate, pruned_run

Score = Callable[[str, Sequence[str]], Sequence[float]]
"""From a query and its candidates to scores."""
Asked = tuple[str, list[str]]
"""A query with its candidates."""

WAYS = {
    "smollm2": ("plain", "engine", "stream"),
    "minilm-interaction": ("plain", "engine", "stream"),
    "cross-encoder": ("sentence-transformers", "engine"),
}
"""By model, what is compared; the first is what the others are measured against."""

ALPHA = 0.1
"""Largest share of queries whose best k pruning may change."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One way in one process.

    Attributes:
        seconds: of a query, median.
        requests: peak of the resident set while queries run, in MB above the imports.
        whole: the same with the loading.
        first: the best five of each query.
    """

    seconds: float
    requests: float
    whole: float
    first: list[list[int]]


def asked(name: str, split: str, queries: int, candidates: int) -> list[Asked]:
    """Queries of a set with the best of BM25."""
    data = load(name)
    stage, texts = Bm25(list(data.docs.values())), list(data.docs.values())
    made = []
    for query in list(data.part(split).queries.values())[:queries]:
        best = np.argsort(-stage.scores(query))[:candidates]
        made.append((query, [texts[place] for place in best]))
    return made


def plain_decoder() -> Score:
    """The likelihood of the query under SmolLM2, all candidates padded into one batch through transformers' model."""
    folder = model_folder("smollm2")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    rows = Decoder(ResidentDecoder(model), Tokenizer.load(folder), name="plain")

    def score(query: str, texts: Sequence[str]) -> list[float]:
        encoded = rows.encode(query, texts)
        ids, lengths = pad(encoded.rows)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        with torch.inference_mode():
            states = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            made = []
            for at, (start, end) in enumerate(encoded.spans or ()):
                chances = model.lm_head(states[at, start - 1 : end - 1]).float().log_softmax(-1)
                made.append(float(chances.gather(1, ids[at, start:end, None]).mean()))
        return made

    return score


def plain_interaction() -> Score:
    """The shipped model, all candidates padded into one batch, no chunks."""
    model = InteractionModel()

    def score(query: str, texts: Sequence[str]) -> list[float]:
        with torch.inference_mode():
            state = model.begin(model.encode(query, texts), range(len(texts)))
            for at in range(model.layers):
                state = model.advance(at, state)
            made: list[float] = model.scores(model.layers, state).tolist()
        return made

    return score


def cross_encoder_folder() -> Path:
    """A BERT cross-encoder of MiniLM's weights and a head that was never trained: right for time and memory alone."""
    folder = Path(mkdtemp(prefix="ctxmem-bench-"))
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(locate("minilm"), num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("minilm")).save_pretrained(folder)
    return folder


def peer_cross_encoder(folder: Path) -> Score:
    """sentence-transformers' CrossEncoder, which is installed by hand."""
    model: Any = import_module("sentence_transformers").CrossEncoder(str(folder), device="cpu", max_length=256)
    return lambda query, texts: [float(one) for one in model.predict([(query, text) for text in texts])]


def way(model: str, name: str, folder: Path | None) -> Score:
    """One way, loaded."""
    if name == "sentence-transformers":
        assert folder is not None
        return peer_cross_encoder(folder)
    if name == "plain":
        return plain_decoder() if model == "smollm2" else plain_interaction()
    return Reranker.load(str(folder or model), memory="stream" if name == "stream" else "resident").score


def resident(field: str) -> float:
    """A field of this process's status, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def forget_peak() -> None:
    """The peak of the resident set is what it is now."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(model: str, name: str, rows: Sequence[Asked], folder: Path | None) -> Measured:
    """Run one way in this process."""
    if name == "sentence-transformers":
        import_module("sentence_transformers")  # so that its import is not counted
    torch.nn.functional.linear(torch.ones(64, 64), torch.ones(64, 64))  # what torch sets up at its first product
    forget_peak()
    before = resident("VmRSS")
    score = way(model, name, folder)
    score(*rows[0])
    loaded = resident("VmHWM")
    gc.collect()
    forget_peak()
    seconds, first = [], []
    for query, texts in rows[1:]:
        begun = time.perf_counter()
        found = score(query, texts)
        seconds.append(time.perf_counter() - begun)
        first.append(np.argsort(-np.array(found), kind="stable")[:5].tolist())
    peak = resident("VmHWM")
    return Measured(median(seconds), peak - before, max(peak, loaded) - before, first)


def compared(model: str, candidates: int, queries: int, rounds: int) -> None:
    """Print what each way takes, as shares of the first."""
    folder = cross_encoder_folder() if model == "cross-encoder" else None
    found: dict[str, list[Measured]] = {name: [] for name in WAYS[model]}
    for _ in range(rounds):
        for name in WAYS[model]:
            argv = [sys.executable, "-m", "bench.rerank", "--one", model, name, "--candidates", str(candidates)]
            argv += ["--queries", str(queries), *(["--folder", str(folder)] if folder else [])]
            done = subprocess.run(argv, check=True, capture_output=True, text=True)
            found[name].append(Measured(**json.loads(done.stdout.splitlines()[-1])))
    base = found[WAYS[model][0]]
    print(f"\n{model}: {candidates} candidates, {queries} queries, {rounds} rounds", flush=True)
    for name, runs in found.items():
        time_of, memory, whole = (
            median(getattr(one, part) for one in runs) for part in ("seconds", "requests", "whole")
        )
        shares = [
            time_of / median(one.seconds for one in base),
            memory / median(one.requests for one in base),
            whole / median(one.whole for one in base),
        ]
        same = fmean(set(a) == set(b) for a, b in zip(runs[0].first, base[0].first, strict=True))
        print(
            f"  {name:22} {time_of:6.2f} s ({shares[0]:.2f}x)  requests {memory:6.0f} MB ({shares[1]:.2f}x)"
            f"  with loading {whole:6.0f} MB ({shares[2]:.2f}x)  same best five {same:.2f}",
            flush=True,
        )


def pruned(calibration: int, unseen: int, *, k: int = 5, candidates: int = 20) -> None:
    """Print what pruning saves on unseen queries, and how often it changes the best k."""
    reranker = Reranker.load()
    sets = ("nq", "hotpotqa", "squad")
    shares = [[asked(name, "train", calibration // len(sets), candidates) for name in sets]]
    shares += [[asked(name, "test", unseen // len(sets), candidates) for name in sets]]
    seen, fresh = ([row for rows in zip(*share, strict=True) for row in rows] for share in shares)
    runs = reranker.traces(seen)
    policy = calibrate(runs, k=k, alpha=ALPHA, model=reranker.name)
    print(f"\ncalibrated(alpha={ALPHA}), k={k}, {len(seen)} queries, margin {policy.margin:.2f}", flush=True)
    runs += judged(reranker, policy, fresh, k)
    resampled(runs, len(seen), k)


def judged(reranker: Reranker, policy: Calibrated, rows: Sequence[Asked], k: int) -> list[Run]:
    """Ask each query twice, in full and pruned; returns the full runs."""
    full, short, same, shared, cost, runs = [], [], [], [], [], []
    for query, texts in rows:
        begun = time.perf_counter()
        whole = rank(reranker.model, query, texts, k=k, options=Options(trace=True))
        full.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        quick = rank(reranker.model, query, texts, k=k, policy=policy)
        short.append(time.perf_counter() - begun)
        agreed = set(whole.order[:k]) & set(quick.order[:k])
        same.append(len(agreed) == k)
        shared.append(len(agreed) / k)
        cost.append(quick.cost)
        runs.append(whole.trace)
    print(
        f"  {len(rows)} unseen queries: work {fmean(cost):.2f}x, time {median(short) / median(full):.2f}x (median),"
        f" {sum(short) / sum(full):.2f}x (sum); same best {k} in {fmean(same):.3f}, agreement {fmean(shared):.3f}",
        flush=True,
    )
    return runs


def resampled(runs: Sequence[Run], seen: int, k: int, *, rounds: int = 20) -> None:
    """The same with other queries seen and unseen: means over random parts of all runs, the least and the most work."""
    rng, works, same = random.Random(1), [], []
    for _ in range(rounds):
        drawn = rng.sample(runs, len(runs))
        policy = calibrate(drawn[:seen], k=k, alpha=ALPHA)
        found = [(pruned_run(policy, run, k), best_of(run[-1], k)) for run in drawn[seen:]]
        layers = [max(0, exits - 1) for (_, reached), _ in found for exits in reached]  # the first is before any layer
        works.append(fmean(layers) / (len(runs[0]) - 1))
        same.append(fmean(kept == best for (kept, _), best in found))
    print(
        f"  {rounds} random parts of these: work {fmean(works):.2f}x ({min(works):.2f} to {max(works):.2f}),"
        f" same best {k} in {fmean(same):.3f}",
        flush=True,
    )


def main() -> None:
    """Print the tables; reads `CTXMEM_DATA`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--queries", type=int, default=5, help="measured queries of a way")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--calibration", type=int, default=90, help="queries that pruning is calibrated on; 0 leaves it out"
    )
    parser.add_argument("--unseen", type=int, default=90)
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "WAY"), help="one way in this process, as JSON")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.one:
        rows = asked("squad", "test", chosen.queries + 1, chosen.candidates)
        print(json.dumps(asdict(measure(*chosen.one, rows, chosen.folder))))
        return
    for model in chosen.models:
        compared(model, chosen.candidates, chosen.queries, chosen.rounds)
    if chosen.calibration:
        pruned(chosen.calibration, chosen.unseen)


if __name__ == "__main__":
    main()
