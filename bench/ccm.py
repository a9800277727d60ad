"""Compressed context memory against what has the same room: loss of the next turn, and in-context accuracy.

    python -m bench.ccm --data DATA [--adapter FOLDER] [--dialogues 60] [--tasks 40]

Every row predicts the same tokens behind the same conversation; rows differ in what is left of it. `gap` is the share
of the way from no context to the full one, in nats per token, with a bootstrap interval over dialogues. `shuffled`
gives each dialogue another one's memory: what is left there is general conditioning, not content.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import DynamicCache

from ctxmem.lm.causal import CausalLM
from ctxmem.lm.ccm.adapter import Adapter
from ctxmem.lm.ccm.compressed import ADAPTER
from ctxmem.lm.ccm.files import load_adapter
from ctxmem.lm.ccm.memory import MemoryModel
from ctxmem.lm.ccm.rows import ChatML
from ctxmem.lm.ccm.update import Update

Steps = Sequence[list[int]]
SEED = 7


@dataclass(frozen=True, slots=True)
class Past:
    """What a row has of the conversation: a cache, the position that comes next, and how many positions it holds."""

    cache: DynamicCache
    position: int
    slots: int


Row = Callable[[Steps], Past]


def main() -> None:
    """Run the rows and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, default=ADAPTER)
    parser.add_argument("--dialogues", type=int, default=60)
    parser.add_argument("--tasks", type=int, default=40)
    asked = parser.parse_args()
    bench = Bench(CausalLM.load("smollm2", threads=torch.get_num_threads()), asked.adapter)
    for name, path, field in (
        ("DailyDialog", "dailydialog_x/open/dailydialog_dev.jsonl", "turns"),
        ("MSC", "msc/open/session3_valid.jsonl", "dialog"),
    ):
        talks = bench.talks(asked.data / path, field, asked.dialogues)
        print(f"\n{name}: {len(talks)} unseen dialogues, next-turn loss behind 4 steps\n")
        bench.loss_table(talks)
    print(f"\nCLINC150, labels held out of training: accuracy of {asked.tasks} tasks of 4 labels, 2 examples each\n")
    bench.accuracy_table(clinc(asked.data / "icl_tasks/open/clinc150_small_trainval.json", asked.tasks))


def clinc(path: Path, count: int) -> list[list[tuple[str, str]]]:
    """Tasks of examples (text, label); the last one is asked. Labels are every fourth, which training leaves out."""
    by_label: dict[str, list[str]] = {}
    for text, label in json.loads(path.read_text())["train"]:
        by_label.setdefault(label, []).append(text)
    held, rng, tasks = sorted(by_label)[::4], random.Random(SEED), []
    for _ in range(count):
        labels = rng.sample(held, 4)
        shown = [(text, label.replace("_", " ")) for label in labels for text in rng.sample(by_label[label], 3)]
        asked = shown.pop(3 * rng.randrange(4))
        rng.shuffle(shown)
        tasks.append([*shown[:8], asked])
    return tasks


class Bench:
    """One model with one adapter, and the rows over them."""

    def __init__(self, lm: CausalLM, adapter: Path) -> None:
        self.lm = lm
        self.chat = ChatML(lm.tokenizer)
        torch.manual_seed(SEED)
        blank = Adapter(lm.model)
        blank.start_from(lm.model.get_parameter("model.embed_tokens.weight").detach()[self.chat.end])
        self.blank = MemoryModel(lm.model, blank, sink=self.chat.start)
        trained, sink = load_adapter(adapter, lm.model)
        self.trained = MemoryModel(lm.model, trained, sink=sink)

    def talks(self, path: Path, field: str, count: int) -> list[Steps]:
        """Dialogues as five steps of at least 24 tokens; the last is predicted."""
        found: list[Steps] = []
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                turns = [turn if isinstance(turn, str) else turn["text"] for turn in json.loads(line)[field]]
                steps: list[list[int]] = [[]]
                for at, turn in enumerate(turns):
                    if len(steps[-1]) >= 24:
                        steps.append([])
                    steps[-1] += self.chat.message(("user", "assistant")[at % 2], turn)
                if len(steps) > 5:
                    found.append(steps[:5])
        return random.Random(SEED).sample(found, min(count, len(found)))

    def rows(self, slots: int) -> dict[str, Row]:
        """What is compared, all but the first two within `slots` positions behind the sink."""
        return {
            "no context": lambda steps: self._text([], 0),
            "full context": lambda steps: self._text(_joined(steps), 0),
            "last tokens, read alone": lambda steps: self._text(_joined(steps)[-slots:], 0),
            "sink + window": lambda steps: self._pressed(steps, slots, _recent),
            "KeyDiff": lambda steps: self._pressed(steps, slots, _keydiff),
            "key norm": lambda steps: self._pressed(steps, slots, _keynorm),
            "CCM untrained": lambda steps: self._memory(self.blank, steps, Update(), slots // 4),
            "CCM-concat": lambda steps: self._memory(self.trained, steps, Update(), slots // 4),
            "CCM-merge": lambda steps: self._memory(self.trained, steps, Update("merge"), 8),
            "CCM-hybrid": lambda steps: self._memory(self.trained, steps, Update("hybrid", bank=1), slots // 4),
        }

    def loss_table(self, talks: Sequence[Steps], *, slots: int = 16) -> None:
        """Nats per token of the last step, by row."""
        losses: dict[str, list[float]] = {}
        sizes: dict[str, float] = {}
        for name, row in self.rows(slots).items():
            pasts = [row(steps[:-1]) for steps in talks]
            sizes[name] = sum(past.slots for past in pasts) / len(pasts)
            losses[name] = [self.loss(past, steps[-1]) for past, steps in zip(pasts, talks, strict=True)]
            if name == "CCM-concat":
                others = [row(steps[:-1]) for steps in (*talks[1:], talks[0])]
                losses["CCM-concat, shuffled"] = [
                    self.loss(past, steps[-1]) for past, steps in zip(others, talks, strict=True)
                ]
                sizes["CCM-concat, shuffled"] = sizes[name]
        print("| row | positions | nats per token | gap closed (95 %) |\n|---|---|---|---|")
        for name, values in losses.items():
            low, mid, high = gap(values, losses["no context"], losses["full context"])
            print(f"| {name} | {sizes[name]:.0f} | {_mean(values):.3f} | {mid:.2f} ({low:.2f} to {high:.2f}) |")

    def accuracy_table(self, tasks: Sequence[Sequence[tuple[str, str]]], *, slots: int = 16) -> None:
        """Share of tasks whose right label is the likeliest of the four, by row and number of examples seen."""
        print("| row | 2 examples | 4 | 8 |\n|---|---|---|---|")
        for name, row in self.rows(slots).items():
            shares = [_mean([float(self._right(row, task, seen)) for task in tasks]) for seen in (2, 4, 8)]
            print(f"| {name} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")

    def loss(self, past: Past, ids: Sequence[int]) -> float:
        """Mean nats per token of a step behind what is left of its past; its first token is given."""
        length = past.cache.get_seq_length()
        with torch.inference_mode():
            logits = self.lm.model(
                input_ids=torch.tensor([ids]),
                past_key_values=DynamicCache([(keys, values) for keys, values, _ in past.cache]),
                position_ids=past.position + torch.arange(len(ids))[None],
                attention_mask=torch.ones(1, length + len(ids), dtype=torch.long),
            ).logits[0, :-1]
        return float(torch.nn.functional.cross_entropy(logits.float(), torch.tensor(ids[1:])))

    def _right(self, row: Row, task: Sequence[tuple[str, str]], seen: int) -> bool:
        *shown, (text, label) = task
        past = row([self._example(*example) for example in shown[:seen]])
        labels = sorted({label for _, label in task})
        head = [*self.chat.message("user", text), self.chat.start]
        opening = [*head, *self.lm.tokenizer.encode(["assistant\n"])[0].ids]
        losses = {
            one: self.loss(past, [*opening, *self.lm.tokenizer.encode([one])[0].ids, self.chat.end])
            * (len(self.lm.tokenizer.encode([one])[0].ids) + len(opening))
            for one in labels
        }
        return min(labels, key=lambda one: losses[one]) == label

    def _example(self, text: str, label: str) -> list[int]:
        return [*self.chat.message("user", text), *self.chat.message("assistant", label)]

    def _text(self, ids: Sequence[int], start: int) -> Past:
        cache = DynamicCache()
        with torch.inference_mode():
            self.lm.model.base_model(input_ids=torch.tensor([[self.chat.start, *ids]]), past_key_values=cache)
        return Past(cache, start + 1 + len(ids), len(ids))

    def _pressed(self, steps: Steps, slots: int, choose: Callable[[Tensor, int], Tensor]) -> Past:
        """The full key/value cache cut to its sink and `slots` positions, chosen per layer and head."""
        past = self._text(_joined(steps), 0)
        layers = []
        for keys, values, _ in past.cache:
            kept = choose(keys[0, :, 1:], min(slots, keys.shape[2] - 1)).sort(-1).values + 1
            kept = torch.cat((torch.zeros_like(kept[:, :1]), kept), dim=1)[None, ..., None]
            where = kept.expand(-1, -1, -1, keys.shape[-1])
            layers.append((keys.gather(2, where), values.gather(2, where)))
        return Past(DynamicCache(layers), past.position, min(slots, past.slots))

    def _memory(self, model: MemoryModel, steps: Steps, update: Update, tokens: int) -> Past:
        memory = model.empty(update, tokens=max(1, min(tokens, model.adapter.most)))
        for ids in steps:
            memory = model.compress(memory, ids)
        return Past(model.cache(memory), 1 + memory.slots, memory.slots)


def gap(row: Sequence[float], none: Sequence[float], full: Sequence[float]) -> tuple[float, float, float]:
    """Share of the gap closed, with a bootstrap interval over dialogues: low, point, high."""
    rng, places = random.Random(SEED), range(len(row))

    def share(some: Sequence[int]) -> float:
        width = sum(none[at] - full[at] for at in some)
        return sum(none[at] - row[at] for at in some) / width if width else 0.0

    drawn = sorted(share([rng.choice(places) for _ in places]) for _ in range(1000))
    return drawn[25], share(places), drawn[974]


def _recent(keys: Tensor, slots: int) -> Tensor:
    length = keys.shape[1]
    return torch.arange(length - slots, length).expand(keys.shape[0], -1)


def _keydiff(keys: Tensor, slots: int) -> Tensor:
    """Keys least like the mean key (Park et al. 2025, arXiv 2504.15364)."""
    mean = torch.nn.functional.normalize(keys.float(), dim=-1).mean(1, keepdim=True)
    return torch.nn.functional.cosine_similarity(keys.float(), mean, dim=-1).topk(slots, largest=False).indices


def _keynorm(keys: Tensor, slots: int) -> Tensor:
    """Keys of the smallest norm (Devoto et al. 2024, arXiv 2406.11430)."""
    return keys.float().norm(dim=-1).topk(slots, largest=False).indices


def _joined(steps: Steps) -> list[int]:
    return [token for step in steps for token in step]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
