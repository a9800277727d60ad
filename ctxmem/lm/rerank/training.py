"""Trains the interaction reranker: listwise, a loss at every layer, the last layer teaching the earlier ones.

The loss of one query is a softmax over one right document and hard negatives (listwise cross-entropy; Cao et al., ICML
2007), at each layer with a weight that rises with depth, and the divergence of each layer's ranking from the last
layer's (self-distillation; Zhang et al., ICCV 2019), which is what makes early pruning agree with the end.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax
from transformers import AutoModel

from ctxmem.lm.loading import Progress, loading_alone
from ctxmem.lm.products import has_bf16
from ctxmem.lm.rerank.foresight import foresee
from ctxmem.lm.rerank.interaction import OPENED, Interaction
from ctxmem.lm.rerank.rows import Row, read_rows, token_rarity
from ctxmem.lm.rerank.shipped import write
from ctxmem.lm.text import Tokenizer
from ctxmem.models import locate

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Knobs of one training run.

    Attributes:
        seconds: wall-clock limit; 0 for none.
        epochs: passes over the rows.
        negatives: wrong documents beside each right one.
        batch: queries per optimiser step.
        body_rate: peak learning rate of the layers.
        head_rate: of heads, gates and segment.
        longest: tokens of a document that are read.
        distil: weight of the last layer's lesson to the earlier ones.
        every: seconds between two checkpoints with an evaluation.
        seed: of sampling and order.
    """

    seconds: float = 3600.0
    epochs: int = 3
    negatives: int = 5
    batch: int = 8
    body_rate: float = 5e-5
    head_rate: float = 2e-3
    longest: int = 140
    distil: float = 0.3
    every: float = 240.0
    seed: int = 13


class Training:
    """A run that can be interrupted at any point and goes on from its last checkpoint.

    Args:
        model: what is trained, in place; layers below `OPENED` and embeddings stay as they are.
        train: rows to learn from.
        dev: rows to choose by.
        folder: where checkpoints and the log are written.
        recipe: the knobs.
    """

    def __init__(
        self, model: Interaction, train: Sequence[Row], dev: Sequence[Row], *, folder: Path, recipe: Recipe
    ) -> None:
        self.model, self.train, self.dev = model.eval(), list(train), list(dev)
        self.folder, self.recipe = folder, recipe
        body = [weights for layer in model.layers[OPENED:] for weights in layer.parameters()]
        heads = [*model.heads.parameters(), model.gates, model.segment]
        self.learned = trained_names(model)
        for name, weights in model.named_parameters():
            weights.requires_grad_(name in self.learned)
        groups = [{"params": body, "lr": recipe.body_rate}, {"params": heads, "lr": recipe.head_rate}]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
        self.step, self.spent, self.best = 0, 0.0, -1.0
        self.progress: Progress | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).exists():
            self._resume()

    def run(self) -> float:
        """Train to the end of the recipe; returns the best dev value and leaves its weights in `BEST`."""
        began, noted = time.monotonic() - self.spent, self.spent
        if self.step == 0:
            self._note(self.evaluate())
        for batch in self._batches():
            self.spent = time.monotonic() - began
            if self.recipe.seconds and self.spent > self.recipe.seconds:
                break
            self._learn(batch)
            if self.progress:
                self.progress("training", self._gone())
            if self.spent - noted > self.recipe.every:
                noted = self.spent
                self._note(self.evaluate())
        self._note(self.evaluate())
        return self.best

    def evaluate(self) -> dict[str, float]:
        """Mean reciprocal rank of the first right document by set, over 16 candidates a query, and their mean."""
        found: dict[str, list[float]] = {}
        for row in self.dev:
            with torch.inference_mode(), _mixed():
                scores = self._scores(row, [row.positives[0], *row.negatives[:15]])[-1]
            found.setdefault(row.group, []).append(1.0 / (1 + int((scores[1:] >= scores[0]).sum())))
        means = {group: sum(values) / len(values) for group, values in sorted(found.items())}
        return means | {"mean": sum(means.values()) / len(means)}

    def _batches(self) -> Iterator[list[Row]]:
        """What is left of the recipe, in an order that depends on the seed alone."""
        size = self.recipe.batch
        total = 0
        for epoch in range(self.recipe.epochs):
            order = list(range(len(self.train)))
            random.Random(self.recipe.seed + epoch).shuffle(order)
            for start in range(0, len(order) - size + 1, size):
                total += 1
                if total > self.step:
                    yield [self.train[place] for place in order[start : start + size]]

    def _learn(self, batch: Sequence[Row]) -> None:
        rng = random.Random(self.recipe.seed * 1_000_003 + self.step)
        for row in batch:
            (self._loss(row, rng) / len(batch)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([one for one in self.model.parameters() if one.requires_grad], 1.0)
        factor = self._factor()
        rates = (self.recipe.body_rate, self.recipe.head_rate)
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1

    def _factor(self) -> float:
        """Learning rate's share of its peak: 30 steps up, then down to a tenth as time or rows run out."""
        return min(1.0, (self.step + 1) / 30) * max(0.1, 1.0 - 0.9 * self._gone())

    def _gone(self) -> float:
        """The share of the run that is done, by rows or by time."""
        total = self.recipe.epochs * (len(self.train) // self.recipe.batch)
        return max(self.step / max(1, total), self.spent / self.recipe.seconds if self.recipe.seconds else 0.0)

    def _loss(self, row: Row, rng: random.Random) -> Tensor:
        near = row.negatives[:12]
        wrong = rng.sample(near, min(self.recipe.negatives - 2, len(near)))
        rest = row.negatives[12:]
        wrong += rng.sample(rest, min(self.recipe.negatives - len(wrong), len(rest)))
        with _mixed():
            scores = self._scores(row, [rng.choice(row.positives), *wrong])
        logs = [log_softmax(one.float(), -1) for one in scores]
        teacher = logs[-1].detach()
        loss = -logs[-1][0]
        for at, one in enumerate(logs[:-1]):
            share = 0.3 * (at + 1) / len(logs)
            lesson = kl_div(one, teacher, reduction="sum", log_target=True)
            loss = loss + share * (self.recipe.distil * lesson - one[0])
        return loss

    def _scores(self, row: Row, documents: Sequence[Sequence[int]]) -> list[Tensor]:
        """(documents,) scores after the embeddings and after each layer."""
        pairs = self.model.begin(row.query, documents)
        found = [pairs.scores]
        for at in range(len(self.model.layers)):
            pairs = self.model.advance(at, pairs)
            found.append(pairs.scores)
        return found

    def _note(self, values: Mapping[str, float]) -> None:
        line = {"step": self.step, "seconds": round(self.spent), **{k: round(v, 4) for k, v in values.items()}}
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")
        if values["mean"] > self.best:
            self.best = values["mean"]
            _save(self.folder / BEST, {"weights": self._weights(), "recipe": asdict(self.recipe), "log": line})
        state = {"step": self.step, "spent": self.spent, "best": self.best, "optimiser": self.optimiser.state_dict()}
        _save(self.folder / CHECKPOINT, state | {"weights": self._weights()})

    def _weights(self) -> dict[str, Tensor]:
        kept = {name: weights for name, weights in self.model.state_dict().items() if name in self.learned}
        return kept | {"frequency": self.model.state_dict()["frequency"]}

    def _resume(self) -> None:
        state = torch.load(self.folder / CHECKPOINT, weights_only=True)
        self.model.load_state_dict(state["weights"], strict=False)
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.spent, self.best = state["step"], state["spent"], state["best"]


def trained_names(model: Interaction) -> frozenset[str]:
    """Names of the parameters that training changes."""
    lower = tuple(f"layers.{at}." for at in range(OPENED))
    names = (name for name, _ in model.named_parameters())
    return frozenset(name for name in names if not name.startswith(("embeddings.", "foresights.", *lower)))


def _mixed() -> Any:
    """bf16 for the large products where the processor has it."""
    return torch.autocast("cpu", torch.bfloat16) if has_bf16() else nullcontext()


def _save(path: Path, value: Mapping[str, object]) -> None:
    """Write whole or not at all."""
    scratch = path.with_suffix(".writing")
    torch.save(dict(value), scratch)
    os.replace(scratch, path)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run left.

    Attributes:
        weights: the file that `Reranker.load` takes.
        best: mean reciprocal rank on the dev rows.
    """

    weights: Path
    best: float


def train_reranker(
    rows: Path, out: Path, *, recipe: Recipe, threads: int = 1, progress: Progress | None = None
) -> Trained:
    """Train on `train.jsonl` of a folder, choose by its `dev.jsonl`, write int8 weights into `out`.

    Args:
        rows: the folder with the rows.
        out: where checkpoints, log and weights go; a run that is there goes on.
        recipe: the knobs.
        threads: of the processor.
        progress: told the share that is done.

    Raises:
        InvalidInput: a row is wrong.
        ModelError: the packaged MiniLM is missing.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    folder = locate("minilm")
    tokenizer = Tokenizer.load(folder)
    train = read_rows(rows / "train.jsonl", tokenizer, longest=recipe.longest)
    dev = read_rows(rows / "dev.jsonl", tokenizer, longest=recipe.longest)
    with loading_alone():
        body = AutoModel.from_pretrained(folder, local_files_only=True)
    model = Interaction(body, token_rarity(train, body.config.vocab_size))
    run = Training(model, train, dev, folder=out, recipe=recipe)
    run.progress = progress
    best = run.run()
    path = out / "reranker.safetensors"
    chosen = torch.load(out / BEST, weights_only=True)
    model.load_state_dict(chosen["weights"], strict=False)
    weights = chosen["weights"] | foresee(model, train, seed=recipe.seed)
    write(weights, path, card={"recipe": json.dumps(chosen["recipe"]), "dev": json.dumps(chosen["log"])})
    return Trained(path, best)
