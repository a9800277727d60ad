"""What memories are measured on: dialogues, and tasks learnt from examples. None of it is in the training rows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.kvmemory.labels import Texts, banking, clinc
from bench.kvmemory.ways import SEED, Steps
from ctxmem.lm.ccm.rows import ROLES, ChatML

DIALOGUES = {
    "dailydialog": ("DailyDialog", "dailydialog_x/open/dailydialog_dev.jsonl", "turns"),
    "msc": ("MSC", "msc/open/session3_valid.jsonl", "dialog"),
}
"""Title, file and field of each set of dialogues."""

BBH = (
    "boolean_expressions",
    "sports_understanding",
    "date_understanding",
    "logical_deduction_three_objects",
    "tracking_shuffled_objects_three_objects",
)
"""Tasks of BIG-Bench Hard whose answers are one of a few labels."""

LABELLED = {"clinc": clinc, "banking": banking}

STEP = 24
"""Tokens that a step of a dialogue has at least."""


@dataclass(frozen=True, slots=True)
class Task:
    """Examples of (text, label), one more text, and the labels it is to be told apart by; the first is right."""

    shown: list[tuple[str, str]]
    text: str
    labels: list[str]


def talks(path: Path, field: str, chat: ChatML, *, count: int) -> list[Steps]:
    """Dialogues as five steps; the last is predicted."""
    found: list[Steps] = []
    for said in dialogues(path, field):
        steps: list[list[int]] = [[]]
        for at, turn in enumerate(said):
            if len(steps[-1]) >= STEP:
                steps.append([])
            steps[-1] += chat.message(ROLES[at % 2], turn)
        if len(steps) > 5:
            found.append(steps[:5])
    return random.Random(SEED).sample(found, min(count, len(found)))


def dialogues(path: Path, field: str) -> Iterator[list[str]]:
    """The turns of each dialogue of a file."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield [turn if isinstance(turn, str) else turn["text"] for turn in json.loads(line)[field]]


def tasks(name: str, data: Path, *, count: int) -> list[Task]:
    """Tasks of one set: `clinc` and `banking` with labels that training leaves out, `bbh` of which it has nothing."""
    rng = random.Random(SEED)
    if name == "bbh":
        return [task for part in BBH for task in _bbh(data / f"icl_tasks/open/bbh/{part}.json", count // len(BBH), rng)]
    _, held = LABELLED[name](data)
    return [_classes({label: held[label] for label in rng.sample(sorted(held), 4)}, rng) for _ in range(count)]


def _classes(texts: Texts, rng: random.Random) -> Task:
    """Two examples of each class, and a third text of one of them."""
    labels = list(texts)
    drawn = {label: rng.sample(texts[label], 3) for label in labels}
    shown = [(text, label) for label in labels for text in drawn[label][:2]]
    rng.shuffle(shown)
    right = rng.choice(labels)
    return Task(shown, drawn[right][2], _first(right, labels))


def _bbh(path: Path, count: int, rng: random.Random) -> list[Task]:
    rows = [(row["input"], row["target"]) for row in json.loads(path.read_text())["examples"]]
    labels, found = sorted({target for _, target in rows}), []
    for _ in range(count):
        *shown, (text, right) = rng.sample(rows, 9)
        found.append(Task(shown, text, _first(right, labels)))
    return found


def _first(right: str, labels: Sequence[str]) -> list[str]:
    return [right, *(label for label in labels if label != right)]
