"""CPU seconds of compression to half of the tokens, beside two packages, and what an appended turn changes.

    bench/peers.sh; python -m bench.compression_speed                  # 512 to 8192 tokens, all rows
    python -m bench.compression_speed --sizes 512 2048 --skip llmlingua
    python -m bench.compression_speed --sizes 4096 --pool              # scoring by one process and by one for each core

Texts are LoCoMo conversations cut to the size. All have one thread and SmolLM2. `cold`: a text not seen before.
`cached`: the same text again, its scores or the decision from the cache. `appended`: a conversation of that size of
which all turns but the last were compressed before, each by itself; a package reads the whole again, as if cold.
`selective-context` searches its own ratio with 14 tries of its selection, which costs little beside the model.
`churn`: the share of the words sent before a turn was appended that changes, over 20 turns of a conversation; the
package compresses the whole again, ours each turn by itself, worked out anew every time. `scored`: tokens that go
through the scorer for one appended turn.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from statistics import mean

import torch

from bench.harness import cpu_seconds, interleave, save, show, show_rows
from bench.harness import rows as measured_rows
from bench.pruning import cases, peers
from bench.pruning.candidates import MODEL
from bench.pruning.peers import PeerFailed, PeerProcess
from ctxmem.compressors.budgets import Ratio
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.decisions import Decisions
from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.remembered import Remembered
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.pool import ScorerPool
from ctxmem.models import home
from ctxmem.ports import Scorer, TokenScores
from ctxmem.stores.memory import MemoryCache
from ctxmem.tokens.resolve import counter_for

REFERENCE = "selective-context"
TURNS = 20
ROUNDS = 3

Compress = Callable[[str], str]
"""A text, halved."""


@dataclass(slots=True)
class Counting:
    """A scorer that counts the characters it was given."""

    scorer: Scorer
    texts: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.scorer.name

    def seconds(self, texts: Sequence[str]) -> float:
        return self.scorer.seconds(texts)

    def score(self, texts: Sequence[str], *, deadline: float | None = None) -> list[TokenScores]:
        self.texts += texts
        return self.scorer.score(texts, deadline=deadline)


def ours(scorer: Scorer, decisions: Decisions | None = None) -> Compress:
    counter = counter_for(MODEL)
    compressor = Compressor(counter, scorer, decisions=decisions)
    if decisions is not None:
        return lambda text: compressor(text, Ratio(0.5)).text or ""
    return lambda text: compressor(text, max(1, counter.texts([text])[0] // 2)).text or ""


def theirs(process: PeerProcess) -> Compress:
    counter = counter_for(MODEL)

    def halved(text: str) -> str:
        return str(process.ask("compress", text=text, query="", allowed=counter.texts([text])[0] // 2)["text"])

    return halved


def spent(compress: Compress, text: str) -> float:
    """CPU seconds of this process and all it started."""
    before = cpu_seconds(os.getpid())
    compress(text)
    return cpu_seconds(os.getpid()) - before


def timed(compress: Compress, text: str, rounds: int = 20) -> float:
    """CPU seconds of this thread's process, averaged over many rounds: for what is too quick for `spent`."""
    before = time.process_time()
    for _ in range(rounds):
        compress(text)
    return (time.process_time() - before) / rounds


def cached_times(compress: Compress, text: str, sizes: Sequence[int]) -> dict[int, float]:
    """By size, CPU seconds of the second time and on."""
    found = {}
    for size in sizes:
        some = cut_to(text, size)
        compress(some)
        found[size] = timed(compress, some)
    return found


def appended_times(compress: Compress, text: str, sizes: Sequence[int]) -> dict[int, float]:
    """By size, CPU seconds for all turns of a conversation when its last one is new."""
    found = {}
    for size in sorted(sizes):
        turns = [line for line in cut_to(text, size).splitlines() if line.strip()]
        for turn in turns[:-1]:
            compress(turn)
        before = time.process_time()
        for turn in turns:
            compress(turn)
        found[size] = time.process_time() - before
    return found


def cut_to(text: str, tokens: int) -> str:
    """Its longest beginning of at most so many tokens, whole lines."""
    counter, taken, total = counter_for(MODEL), [], 0
    for line in text.splitlines(keepends=True):
        total += counter.texts([line])[0]
        if total > tokens:
            break
        taken.append(line)
    return "".join(taken)


def long_texts(number: int) -> list[str]:
    """Conversations one after the other, each text long enough for the largest size."""
    talks = [case.text for case in cases.load("locomo", 20 * number)]
    return ["\n".join(talks[i::number]) for i in range(number)]


def speed(texts: Sequence[str], rows: dict[str, Compress], sizes: Sequence[int]) -> dict[str, dict[int, float]]:
    """By row and size, mean CPU seconds over the texts; rows take turns at each text."""
    samples: dict[str, dict[int, list[float]]] = {name: {} for name in rows}
    for compress in rows.values():
        compress("Warm up. " * 40)
    for size, text, name in product(sizes, texts, rows):
        print(f"{name} {size}", end="\r", file=sys.stderr, flush=True)
        try:
            taken = spent(rows[name], cut_to(text, size))
        except PeerFailed as error:
            print(f"{name} at {size}: {error}", file=sys.stderr)
        else:
            samples[name].setdefault(size, []).append(taken)
    return {name: {size: mean(some) for size, some in its.items()} for name, its in samples.items()}


def beside(seconds: float | None, base: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} ({base / seconds:.1f}x)" if base and seconds else f"{seconds:.2f}"


def churn(before: str, after: str) -> float:
    """Share of what was sent that does not stand in what is sent now, as matching runs of words."""
    old, new = before.split(), after.split()
    matches = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    return 1 - sum(match.size for match in matches) / max(1, len(old))


def prefix_change(before: str, after: str) -> float:
    """Share of what was sent from its first changed character on: what a prompt cache must read again."""
    same = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    return 1 - same / max(1, len(before))


def churns(turns: Sequence[str], whole: Compress | None, each: Compress) -> list[tuple[str, str, str]]:
    lines = []
    growing = ["\n".join(turns[: i + 1]) for i in range(4, len(turns))]
    if whole is not None:
        lines.append((REFERENCE, [whole(text) for text in growing]))
    lines.append(("ours, each turn once", ["\n".join(map(each, text.split("\n"))) for text in growing]))
    return [
        (
            name,
            f"{mean(churn(a, b) for a, b in pairwise(outputs)):.3f}",
            f"{mean(prefix_change(a, b) for a, b in pairwise(outputs)):.3f}",
        )
        for name, outputs in lines
    ]


def scored(turns: Sequence[str], lm: Scorer) -> list[tuple[str, str]]:
    """Tokens through the scorer when a turn is appended, of the conversation's tokens."""
    counter, counting = counter_for(MODEL), Counting(lm)
    with ThreadPoolExecutor(1) as pool:
        each = ours(Remembered(counting, MemoryCache(), "bench", pool))
        for turn in turns[:-1]:
            each(turn)
        counting.texts.clear()
        for turn in turns:
            each(turn)
    return [(str(sum(counter.texts(counting.texts))), str(sum(counter.texts(turns))))]


def from_caches(text: str, lm: Scorer, sizes: Sequence[int]) -> dict[str, dict[int, float]]:
    """Print and give the CPU seconds of what was seen before, in whole or but for its last turn."""
    with ThreadPoolExecutor(1) as pool:
        remembered = Remembered(lm, MemoryCache(), "bench", pool)
        decided = ours(remembered, Decisions(MemoryCache(), "bench"))
        found = {
            "cached: scores": cached_times(ours(remembered), text, sizes),
            "cached: decision": cached_times(decided, text, sizes),
            "appended, ours": appended_times(decided, text, sizes),
            "appended, lexical": appended_times(ours(Lexical(), Decisions(MemoryCache(), "bench")), text, sizes),
        }
    lines = [(name, *(f"{1000 * its[size]:.2f}" for size in sizes)) for name, its in found.items()]
    show("CPU ms", ("row", *map(str, sizes)), lines)
    return found


def pooled(text: str, lm: CausalLM) -> None:
    """Seconds to score a text, by one process and by one for each core, which take turns."""

    def measured(scorer: Scorer) -> dict[str, float]:
        cpu, began = cpu_seconds(os.getpid()), time.monotonic()
        scorer.score([text])
        return {"seconds": time.monotonic() - began, "CPU seconds": cpu_seconds(os.getpid()) - cpu}

    with ScorerPool(MODEL) as pool:
        pool.score([text])  # loads the model in all of them
        candidates = {"one process": partial(measured, lm), f"pool of {pool.processes}": partial(measured, pool)}
        samples = interleave(candidates, ROUNDS)
    title = f"one text of {counter_for(MODEL).texts([text])[0]} tokens, {ROUNDS} rounds"
    show_rows(title, measured_rows(samples, reference="one process"), reference="one process")


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024, 2048, 4096, 8192], help="tokens")
    parser.add_argument("--texts", type=int, default=2)
    parser.add_argument("--skip", nargs="+", choices=sorted(peers.SCRIPTS), default=[], help="packages to leave out")
    parser.add_argument("--pool", action="store_true", help="only a pool of scorers, at the largest size")
    parser.add_argument("--json", type=Path, help="write everything there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    asked = options(arguments)
    torch.set_num_threads(1)
    texts = long_texts(asked.texts)
    counter_for(MODEL)  # writes the packaged tokenizer, which the model is read with
    lm = CausalLM.load(MODEL)
    if asked.pool:
        pooled(cut_to(texts[0], max(asked.sizes)), lm)
        return 0
    processes = {name: PeerProcess(name, home(MODEL)) for name in peers.installed() if name not in asked.skip}
    rows = {"lexical": ours(Lexical()), "ours": ours(lm)}
    rows |= {name: theirs(process) for name, process in processes.items()}
    found = speed(texts, rows, asked.sizes)
    base = found.get(REFERENCE, {})
    table = [(name, *(beside(its.get(size), base.get(size)) for size in asked.sizes)) for name, its in found.items()]
    title = f"CPU seconds, cold; in brackets how many times quicker than {REFERENCE}"
    show(title, ("row", *map(str, asked.sizes)), table)
    kept = from_caches(texts[0], lm, asked.sizes)
    turns = [line for line in texts[0].splitlines() if line.strip()][:TURNS]
    changed = churns(turns, rows.get(REFERENCE), ours(Lexical()))
    show(f"an appended turn, {len(turns)} turns", ("row", "churn", "from the first change on"), changed)
    show("tokens for one appended turn", ("scored", "conversation"), scored(turns, lm))
    for process in processes.values():
        process.close()
    save(asked.json, cold=found, kept=kept)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
