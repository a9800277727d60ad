"""Do the answers survive? On real paragraphs with questions, against leaving out words or sentences at random."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.prune import Prune
from ctxmem.compressors.units import sentences
from ctxmem.testing import WordCounter

COUNT = WordCounter()
Texts = dict[str, list[str]]


@pytest.fixture(scope="module")
def articles(data: Path) -> Texts:
    """Text of each article, and the answers to its questions."""
    found = json.loads((data / "squad_xquad_en" / "open" / "squad_open.json").read_text())["data"]
    return {
        "\n\n".join(paragraph["context"] for paragraph in article["paragraphs"]): [
            question["answers"][0]["text"] for paragraph in article["paragraphs"] for question in paragraph["qas"]
        ]
        for article in found
    }


def survival(articles: Texts, texts: list[str]) -> float:
    """Share of the answers that still stand in the texts."""
    said = [" ".join(text.split()).casefold() for text in texts]
    hits = [
        answer.casefold() in text for text, answers in zip(said, articles.values(), strict=True) for answer in answers
    ]
    return sum(hits) / len(hits)


def at_random(text: str, keep: float, split: Callable[[str], list[str]]) -> str:
    pieces = split(text)
    order = random.Random(0).sample(range(len(pieces)), len(pieces))
    budget, chosen = int(keep * len(text.split())), []
    for i in order:
        budget -= len(pieces[i].split())
        if budget < 0:
            break
        chosen.append(i)
    return "".join(pieces[i] for i in sorted(chosen))


def words(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


def whole_sentences(text: str) -> list[str]:
    return [text[unit.start : unit.end] for unit in sentences(text)]


@pytest.mark.parametrize("keep", [0.5, 0.35])
def test_more_answers_survive_than_at_random(articles, keep):
    """At the same number of words, by a clear margin: more than chance leaves, without any model."""
    sources = list(articles)
    pruned = Prune()(sources, Lexical().score(sources), lambda tokens: int(keep * tokens), COUNT)
    ours = survival(articles, [one.text for one in pruned])
    assert ours > survival(articles, [at_random(text, keep, words) for text in sources]) + 0.15
    assert ours > survival(articles, [at_random(text, keep, whole_sentences) for text in sources]) + 0.05


def test_numbers_survive(articles):
    """More of the distinct numbers than of the words."""
    sources = list(articles)
    pruned = Prune()(sources, Lexical().score(sources), lambda tokens: tokens // 2, COUNT)
    numbers = [(set(re.findall(r"\d+", source)), one.text) for source, one in zip(sources, pruned, strict=True)]
    kept = [number in set(re.findall(r"\d+", text)) for found, text in numbers for number in found]
    assert sum(kept) / len(kept) > 0.6
