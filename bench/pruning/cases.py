"""Real texts with questions, and where in the text each answer stands.

Documents that are longer than a CPU reads in good time are cut to windows of about `WORDS` words; every window holds
the gold passage, at a place that a seed chooses.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = 900
"""Words of a window cut out of a long document."""

REPORTED = {"squad": 12, "hotpotqa": 30, "qmsum": 20, "leval": 20, "mtrag": 30, "locomo": 16}
"""Cases of each set that figures are reported of by default: what two cores read in an hour."""

CHOSEN = {"squad": 12, "hotpotqa": 90, "qmsum": 14, "leval": 80, "mtrag": 60, "locomo": 40}
"""Cases after those that the library's rules were chosen on; what comes after these is only measured."""

_SEED = 7
_EXTRACTIVE = ("natural_question", "multidoc_qa", "scientific_qa", "legal_contract_qa")
_WORD = re.compile(r"\w+")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a text.

    Attributes:
        query: the question.
        answer: the gold answer.
        evidence: character spans of the text that the answer is taken from; empty when nobody marked them.
        verbatim: whether the answer stands in the text word for word, letter case and punctuation aside.
    """

    query: str
    answer: str
    evidence: tuple[Span, ...]
    verbatim: bool


@dataclass(frozen=True, slots=True)
class Case:
    """A text and what is asked of it.

    Attributes:
        data: the set it comes from.
        text: what is compressed.
        questions: asked of it.
    """

    data: str
    text: str
    questions: tuple[Question, ...]


def folder() -> Path:
    """Where the real inputs lie."""
    return Path(os.environ.get("CTXMEM_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def load(name: str, limit: int, *, dev: bool = False, after: int = 0) -> list[Case]:
    """Cases of a set, the same ones each time.

    Args:
        name: one of `SETS`.
        limit: most cases.
        dev: those that the library's rules were chosen on, in place of the others.
        after: leaves out so many of them first.

    Raises:
        FileNotFoundError: the set is not in the folder.
    """
    found = list(SETS[name]())
    random.Random(_SEED).shuffle(found)
    first, last = REPORTED[name], REPORTED[name] + CHOSEN[name]
    return (found[first:last] if dev else found[:first] + found[last:])[after:][:limit]


def plain(text: str) -> str:
    """The text's words in lower case, one space between and around them."""
    return f" {' '.join(_WORD.findall(text.lower()))} "


def _squad() -> Iterator[Case]:
    for article in json.loads(_file("squad_xquad_en/open/squad_open.json").read_text())["data"]:
        pieces, asked, at = [], [], 0
        for paragraph in article["paragraphs"]:
            passage = paragraph["context"]
            for row in paragraph["qas"]:
                gold = row["answers"][0]
                span = _sentence(passage, gold["answer_start"])
                asked.append((row["question"], gold["text"], ((at + span[0], at + span[1]),)))
            pieces.append(passage)
            at += len(passage) + 2
        yield _case("squad", "\n\n".join(pieces), asked)


def _hotpot() -> Iterator[Case]:
    for file in ("hotpot_dev_reflexion.jsonl", "hotpot_train100.jsonl"):
        for row in _rows(f"hotpotqa/open/{file}"):
            text, spans = "", {}
            for title, sentences in row["context"]:
                text += f"{title}: " if not text else f"\n\n{title}: "
                for number, sentence in enumerate(sentences):
                    spans[title, number] = len(text), len(text) + len(sentence)
                    text += sentence
            gold = tuple(spans[key] for fact in row["supporting_facts"] if (key := (fact[0], fact[1])) in spans)
            yield _case("hotpotqa", text, [(row["question"], row["answer"], gold)])


def _qmsum() -> Iterator[Case]:
    for number, meeting in enumerate(_rows("qmsum/open/qmsum_val.jsonl")):
        lines = [f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"]]
        for row in meeting["specific_query_list"][:2]:
            first, last = (int(place) for place in row["relevant_text_span"][0])
            text, span = _window(lines, first, last, seed=number)
            if text:
                yield _case("qmsum", text, [(row["query"], row["answer"], (span,))])


def _leval() -> Iterator[Case]:
    for kind in _EXTRACTIVE:
        for number, row in enumerate(_rows(f"leval/open/{kind}.jsonl")):
            lines = _cut(row["input"])
            for query, answer in zip(row["instructions"], row["outputs"], strict=True):
                line = next((i for i, line in enumerate(lines) if plain(answer) in plain(line)), None)
                if line is None or not plain(answer).strip():
                    continue
                text, span = _window(lines, line, line, seed=number)
                if text:
                    yield _case("leval", text, [(query, answer, (span,))])


def _mtrag() -> Iterator[Case]:
    for row in _rows("mtrag_un/open/mtrag_un_open.jsonl"):
        if row["answerability"] != ["ANSWERABLE"] or not row["contexts"]:
            continue
        text = "\n\n".join(passage["text"].strip() for passage in row["contexts"])
        yield _case("mtrag", text, [(row["input"][-1]["text"], row["targets"][0]["text"], ())])


def _locomo() -> Iterator[Case]:
    for chat in json.loads(_file("locomo/open/locomo_open.json").read_text()):
        talk = chat["conversation"]
        for name in (key for key in talk if re.fullmatch(r"session_\d+", key)):
            text, spans = f"[{talk[f'{name}_date_time']}]", {}
            for turn in talk[name]:
                line = f"{turn['speaker']}: {turn['text']}"
                spans[turn["dia_id"]] = len(text) + 1, len(text) + 1 + len(line)
                text += f"\n{line}"
            asked = [
                (row["question"], str(row["answer"]), tuple(spans[place] for place in row["evidence"]))
                for row in chat["qa"]
                if row["category"] != 5 and row["evidence"] and set(row["evidence"]) <= spans.keys()
            ]
            if asked:
                yield _case("locomo", text, asked)


SETS: dict[str, Callable[[], Iterator[Case]]] = {
    "squad": _squad,
    "hotpotqa": _hotpot,
    "qmsum": _qmsum,
    "leval": _leval,
    "mtrag": _mtrag,
    "locomo": _locomo,
}
"""By name, what reads the set."""


def _case(data: str, text: str, asked: list[tuple[str, str, tuple[Span, ...]]]) -> Case:
    words = plain(text)
    return Case(data, text, tuple(Question(q, a, spans, plain(a) in words) for q, a, spans in asked))


def _sentence(text: str, at: int) -> Span:
    """The sentence around a place."""
    ends = [match.end() for match in re.finditer(r"[.!?]\s", text)]
    start = max((end for end in ends if end <= at), default=0)
    return start, min((end for end in ends if end > at), default=len(text))


def _cut(text: str) -> list[str]:
    """Lines; those of more than 120 words cut after sentences."""
    lines = (line.strip() for line in text.splitlines())
    pieces = (re.split(r"(?<=[.!?])\s", line) if len(line.split()) > 120 else [line] for line in lines if line)
    return [piece for some in pieces for piece in some]


def _window(lines: list[str], first: int, last: int, *, seed: int) -> tuple[str, Span]:
    """Whole lines around some, and where those stand; nothing when they alone are too long."""
    sizes = [len(line.split()) for line in lines]
    room = WORDS - sum(sizes[first : last + 1])
    if room < WORDS // 4:
        return "", (0, 0)
    before = random.Random(_SEED + seed).randint(0, room)
    start, stop = first, last + 1
    while start > 0 and before >= sizes[start - 1]:
        start -= 1
        before -= sizes[start]
        room -= sizes[start]
    while stop < len(lines) and room >= sizes[stop]:
        room -= sizes[stop]
        stop += 1
    ahead = sum(len(line) + 1 for line in lines[start:first])
    return "\n".join(lines[start:stop]), (ahead, ahead + len("\n".join(lines[first : last + 1])))


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with _file(name).open() as lines:
        yield from map(json.loads, lines)


def _file(name: str) -> Path:
    path = folder() / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: set CTXMEM_DATA to the folder of the real inputs")
    return path
