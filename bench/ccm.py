"""Compressed context memory against what has the same room.

    python -m bench.ccm --data DATA [--tables dailydialog msc clinc banking bbh] [--adapters FOLDER ...] [--count 40]

Every row predicts the same tokens behind the same conversation; rows differ in what is left of it. `gap` is the share
of the way from no context to the full one, in nats, with a bootstrap interval over dialogues or tasks. `another's`
gives each dialogue the memory of the next one: what is left there is general conditioning, not content. With several
adapters (the same recipe from several seeds) their memories are rows of their own.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.kvmemory.sets import DIALOGUES, Task, talks, tasks
from bench.kvmemory.ways import SEED, Steps, Way, Ways
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.ccm.compressed import ADAPTER
from ctxmem.stateless import count_tokens

TASKS = {
    "clinc": "CLINC150, labels held out of training",
    "banking": "Banking77, labels held out of training",
    "bbh": "BIG-Bench Hard, five tasks of few labels",
}
SEEN = (2, 4, 8)
"""Examples shown, by column."""

Numbers = dict[str, list[float]]


def main() -> None:
    """Print a table per set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", choices=[*DIALOGUES, *TASKS], default=[*DIALOGUES, *TASKS])
    parser.add_argument("--adapters", type=Path, nargs="+", default=[ADAPTER])
    parser.add_argument("--count", type=int, default=40, help="dialogues or tasks of a set")
    parser.add_argument(
        "--tokens", type=int, default=4, help="positions that each step may leave; 7 for a fifth of them"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    count_tokens("", model="smollm2")
    ways = [
        Ways(CausalLM.load("smollm2", threads=asked.threads), adapter, tokens=asked.tokens)
        for adapter in asked.adapters
    ]
    for name in asked.tables:
        if name in DIALOGUES:
            title, path, field = DIALOGUES[name]
            found = talks(asked.data / path, field, ways[0].chat, count=asked.count)
            print(f"\n{title}: {len(found)} unseen dialogues, next-turn loss behind 4 steps\n")
            loss_table(ways, found)
        else:
            drawn = tasks(name, asked.data, count=asked.count)
            print(f"\n{TASKS[name]}: {len(drawn)} tasks, share of right labels by examples seen\n")
            accuracy_table(ways, drawn)


def compared(ways: Sequence[Ways]) -> list[tuple[str, Ways, Way]]:
    """Every row; the memories once for each adapter."""
    rows = [(name, ways[0], way) for name, way in ways[0].all().items()]
    for number, others in enumerate(ways[1:], start=2):
        rows += [(f"{name}, adapter {number}", others, way) for name, way in others.memories().items()]
    return rows


def loss_table(ways: Sequence[Ways], found: Sequence[Steps]) -> None:
    """Nats per token of the last step, by row."""
    losses: Numbers = {}
    sizes: dict[str, float] = {}
    for name, owner, way in compared(ways):
        lefts = [way(steps[:-1]) for steps in found]
        sizes[name] = _mean([left.slots for left in lefts])
        losses[name] = _next_turns(owner, lefts, found)
        if name.startswith("CCM-concat"):
            sizes[f"{name}, another's"] = sizes[name]
            losses[f"{name}, another's"] = _next_turns(owner, [*lefts[1:], lefts[0]], found)
        print(f"  {name}", flush=True)
    print("| row | positions | nats per token | gap closed (95 %) |\n|---|---|---|---|")
    for name, values in losses.items():
        closed = gap(values, losses["no context"], losses["full context"])
        print(f"| {name} | {sizes[name]:.0f} | {_mean(values):.3f} | {closed} |")


def accuracy_table(ways: Sequence[Ways], drawn: Sequence[Task]) -> None:
    """Share of tasks whose right label is the likeliest, and the gap in nats of it at most examples."""
    print("| row | " + " | ".join(f"{seen} examples" for seen in SEEN) + f" | gap closed at {SEEN[-1]} (95 %) |")
    print("|---|" + "---|" * (len(SEEN) + 1))
    none = full = None
    for name, owner, way in compared(ways):
        told = {seen: [_nats(owner, way, task, seen) for task in drawn] for seen in SEEN}
        shares = [_mean([float(right > other) for right, other in told[seen]]) for seen in SEEN]
        values = [-right for right, _ in told[SEEN[-1]]]
        none, full = none or values, (full or values) if name == "full context" else full
        closed = gap(values, none, full) if full else ""
        print(f"| {name} | " + " | ".join(f"{share:.2f}" for share in shares) + f" | {closed} |", flush=True)


def _next_turns(ways: Ways, lefts: Sequence, found: Sequence[Steps]) -> list[float]:
    return [float(ways.losses(left, [steps[-1]])[0].mean()) for left, steps in zip(lefts, found, strict=True)]


def _nats(ways: Ways, way: Way, task: Task, seen: int) -> tuple[float, float]:
    """Log-probability of the right label among the labels, and that of the likeliest wrong one."""
    chat, encode = ways.chat, ways.lm.tokenizer.encode
    left = way([[*chat.message("user", text), *chat.message("assistant", label)] for text, label in task.shown[:seen]])
    opening = [*chat.message("user", task.text), chat.start, *encode(["assistant\n"])[0].ids]
    texts = [[*opening, *encode([label])[0].ids, chat.end] for label in task.labels]
    scores = torch.stack([-nats[len(opening) - 1 :].sum() for nats in ways.losses(left, texts)]).log_softmax(0)
    return float(scores[0]), float(scores[1:].max())


def gap(row: Sequence[float], none: Sequence[float], full: Sequence[float]) -> str:
    """Share of the gap closed, with a bootstrap interval over dialogues."""
    rng, places = random.Random(SEED), range(len(row))

    def share(some: Sequence[int]) -> float:
        width = sum(none[at] - full[at] for at in some)
        return sum(none[at] - row[at] for at in some) / width if width else math.nan

    drawn = sorted(share([rng.choice(places) for _ in places]) for _ in range(1000))
    return f"{share(places):.2f} ({drawn[25]:.2f} to {drawn[974]:.2f})"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
