"""Writes the rows that the shipped adapter of compressed context memory was trained on.

    python -m bench.ccm_rows --data DATA ROWS.jsonl
    ctxmem train ccm ROWS.jsonl RUN --minutes 100

All of them are of licences under which weights may ship: MT-Bench-101 and MT-RAG (Apache-2.0), GSM8K in Socratic steps
and QMSum (MIT), CLINC150 (CC BY 3.0) and Banking77 (CC BY 4.0). Forty dialogues of MT-Bench-101 and every fourth label
of the last two are left out, for measurements.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.kvmemory.labels import Texts, banking, clinc

Row = dict[str, Any]

SEED = 5
HELD = 40
"""Dialogues of MT-Bench-101 that are left out."""
CLASSES = (3, 4, 5, 6)
"""Classes of an in-context task."""


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    made = rows(asked.data)
    asked.out.write_text("".join(json.dumps(row) + "\n" for row in made))
    print(f"{asked.out}: {len(made)} rows")


def rows(data: Path) -> list[Row]:
    """All rows, shuffled."""
    rng = random.Random(SEED)
    talks = list(_mtbench(_lines(data / "mtbench101/open/mtbench101_open.jsonl")))
    rng.shuffle(talks)
    made = talks[HELD:] * 2
    made += _mtrag(_lines(data / "mtrag_un/open/mtrag_un_open.jsonl"))
    made += _gsm8k(_lines(data / "gsm8k_socratic/open/gsm8k_socratic_open.jsonl"))
    made += _qmsum(_lines(data / "qmsum/open/qmsum_val.jsonl"))
    (intents, _), (queries, _) = clinc(data), banking(data)
    for classes in CLASSES:
        made += [_task(intents, classes, rng) for _ in range(140)]
        made += [_task(queries, classes, rng) for _ in range(100)]
    rng.shuffle(made)
    return made


def _lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _mtbench(talks: Iterator[Row]) -> Iterator[Row]:
    sides = (("user", "user"), ("assistant", "bot"))
    for talk in talks:
        yield _messages((role, turn[key]) for turn in talk["history"] for role, key in sides if turn.get(key))


def _mtrag(talks: Iterator[Row]) -> Iterator[Row]:
    """The conversation, and its passages followed by its last two messages."""
    for talk in talks:
        said = [("user" if one.get("speaker") == "user" else "assistant", one["text"]) for one in talk.get("input", [])]
        answers = talk.get("targets") or []
        if answers and answers[0].get("text"):
            said.append(("assistant", answers[0]["text"]))
        if len(said) > 1:
            yield _messages(said)
        passages = [("user", one["text"].strip()) for one in talk.get("contexts", [])[:3]]
        if passages and said:
            yield _messages([*passages, *said[-2:]])


def _gsm8k(problems: Iterator[Row]) -> Iterator[Row]:
    """The problem, then each sub-question with its answer."""
    for problem in problems:
        said = [("user", problem["question"])]
        for step in problem["answer"].split("\n"):
            plain = re.sub(r"<<.*?>>", "", step)
            question, parted, answer = plain.partition(" ** ")
            if parted:
                said += [("user", question), ("assistant", answer)]
            elif plain.startswith("####"):
                said.append(("assistant", f"The answer is {plain[4:].strip()}."))
        if len(said) > 2:
            yield _messages(said)


def _qmsum(meetings: Iterator[Row]) -> Iterator[Row]:
    """Stretches of fourteen utterances of more than four words."""
    for meeting in meetings:
        said = [one["content"] for one in meeting["meeting_transcripts"] if len(one["content"].split()) > 4]
        for start in range(0, len(said) - 12, 24):
            stretch = said[start : start + 14]
            yield _messages((("user", "assistant")[at % 2], text[:600]) for at, text in enumerate(stretch))


def _task(texts: Texts, classes: int, rng: random.Random) -> Row:
    examples = [
        {"input": text, "target": label}
        for label in rng.sample(sorted(texts), classes)
        for text in rng.sample(texts[label], min(len(texts[label]), rng.choice((2, 3, 4))))
    ]
    rng.shuffle(examples)
    return {"examples": examples}


def _messages(said: Sequence[tuple[str, str]] | Iterator[tuple[str, str]]) -> Row:
    return {"messages": [{"role": role, "content": content} for role, content in said]}


if __name__ == "__main__":
    main()
