"""What a question asks for stays; without one nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.ranking import Weights, worth
from ctxmem.compressors.relevance import Question
from ctxmem.compressors.units import SPLITS
from ctxmem.testing import WordCounter

PLACES = ("harbour", "museum", "station", "library", "market", "theatre", "bridge", "garden")
TEXT = " ".join(
    f"The {place} was built in {1890 + 7 * i} by the firm of builder number {i}, who had come from the north. "
    f"Its roof of {i + 3} tiles is kept by a family of gardeners and painters."
    for i, place in enumerate(PLACES)
)


class OneWord:
    """Embeds a text as the share of its words that are `roof` or `covering`: two words for one thing."""

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Any:
        del query
        found = [any(word in text.lower() for word in ("roof", "covering")) for text in texts]
        return np.array([[1.0, 0.0] if one else [0.0, 1.0] for one in found], dtype=np.float32)


def kept(query: str, ratio: float = 0.3, **options: Any) -> str:
    compress = Compressor(WordCounter(), Lexical(), **options)
    return compress(TEXT, int(ratio * len(TEXT.split())), query=query).text or ""


def test_the_sentence_that_answers_stays_whole():
    """For each place in turn, at three tenths of the text."""
    for i, place in enumerate(PLACES):
        asked = kept(f"When was the {place} built?")
        assert f"{place} was built in {1890 + 7 * i} by the firm of builder number {i}" in asked
        assert len(asked.split()) <= 0.3 * len(TEXT.split())


def test_an_embedder_finds_what_other_words_mean():
    """No word of the question stands in the text; its meaning does."""
    asked = kept("covering?", embedder=OneWord())
    assert asked.count("roof") > kept("covering?").count("roof") - 1
    assert asked.count("roof") >= 2


def test_a_second_hop_is_found_by_the_name_that_the_first_one_gives():
    """Nothing in the question but the best sentence's names lead to the sentence that answers."""
    filler = " ".join(f"The {place} stands near a quiet lake and has {i + 2} doors." for i, place in enumerate(PLACES))
    text = f"The opera Nightfall was written by Ilse Marbach. {filler} Marbach was born in 1871 in Trier. {filler}"
    asked = Compressor(WordCounter(), Lexical())(text, 30, query="Where was the writer of the opera Nightfall from?")
    assert "Marbach was born in 1871 in Trier" in (asked.text or "")


CAMPAIGN = "The slogan was that of the campaign of Tim Kaine."
PEOPLE = [
    "Ann Lee: Lee keeps bees.",
    "Tim Kaine: Kaine sits for Virginia.",
    "He plays the harmonica.",
    "Bo Ray: Ray sings.",
]


def follow(question: str, *, heading: str = "Tim Kaine") -> list[float]:
    """Relevance of a campaign and four people's passages, the two in the middle being one section."""
    people = [one.replace("Tim Kaine", heading) for one in PEOPLE]
    passages = [f"The {place} is open." for place in PLACES] + [CAMPAIGN, *people]
    sections = [*range(9), 9, 10, 10, 11]
    found, _ = Question(question).relevance(passages, [(section, i) for i, section in enumerate(sections)])
    return found


def test_a_section_that_a_good_passage_names_comes_up_behind_it():
    """All of the section, whatever of it is asked; never before the passage that names it."""
    campaign, lee, *kaine, ray = follow("the slogan of the campaign")[8:]
    assert campaign > min(kaine) > max(lee, ray)


def test_a_name_that_is_asked_or_that_several_go_by_leads_nowhere():
    """The question finds it by itself; and who speaks in a talk is no heading."""
    asked, nobody = follow("the slogan of the campaign of Tim Kaine"), follow("Tim Kaine", heading="Sue Wu")
    assert asked[10] > nobody[10]  # by its words
    assert max(follow("the slogan of the campaign", heading="Ann Lee")[9:12]) < follow("the slogan of the campaign")[11]


def test_what_goes_on_after_a_semicolon_follows_what_it_goes_on_from():
    """In the same line alone."""
    passages = [f"The {place} is open." for place in PLACES] + ["The firm may (i) sell the ferry;", "(ii) rent a car."]
    same, _ = Question("ferry").relevance(passages, [(i, i) for i in range(8)] + [(8, 8), (8, 8)])
    apart, _ = Question("ferry").relevance(passages, [(i, i) for i in range(10)])
    assert same[8] > same[9] > max(same[:8])
    assert apart[9] == max(apart[:8])


def test_what_goes_says_why():
    """For a question that it has little to do with it, else that it tells little."""
    compress = Compressor(WordCounter(), Lexical())
    reasons = [
        {cut.why for cut in compress(TEXT, 60, query=query).dropped} for query in ("When was the harbour built?", "")
    ]
    assert reasons == [{"has little to do with the query"}, {"tells little"}]


def test_an_empty_question_is_no_question():
    """White space alone changes nothing."""
    assert kept("") == kept("  \n")


def test_below_the_threshold_nothing_stays():
    """Units of passages that have too little to do with the question are in no ranking."""
    units = SPLITS["sentence"](TEXT)
    found = worth(TEXT, units, Lexical().score([TEXT])[0], Weights())
    ranking = found.ranking_for(Question("the harbour", threshold=0.5), 0.5, 0.5)
    assert {"harbour"} == {p for i in ranking for p in PLACES if p in TEXT[units[i].start : units[i].end]}


def test_a_unit_that_says_it_in_fewer_tokens_is_worth_more():
    """The power of the length leans to the short one; at 0 only the sum counts."""
    text = "Alpha 17 beta. " + "and so it was that they of the and to in on at by for with from " * 2 + "Alpha 17 beta."
    units = SPLITS["sentence"](text)
    scores = Lexical().score([text])[0]
    leaning, summed = worth(text, units, scores, Weights()), worth(text, units, scores, Weights(length=0))
    assert leaning.scores[0] / leaning.scores[1] > summed.scores[0] / summed.scores[1]


def test_what_protects_a_unit_does_not_shrink_with_its_length():
    """A number of many tokens is protected like one of few."""
    text = "The dam holds 7 boats and 7,000,000,000,000 litres of water."
    units = SPLITS["phrase"](text)
    scores = Lexical().score([text])[0]
    bare, guarded = worth(text, units, scores, Weights(soft=0)), worth(text, units, scores, Weights(soft=2))
    gains = [more - less for more, less in zip(guarded.scores, bare.scores, strict=True)]
    assert [gain for gain, unit in zip(gains, units, strict=True) if unit.weight] == pytest.approx([2, 2])


def test_nothing_to_compare_is_no_error():
    """No passages, no words, no difference."""
    assert Question("what?").relevance([], []) == ([], [])
    assert Question("").relevance(["a", "b"], [(0, 0), (0, 1)])[0] == [0.0, 0.0]


def test_a_turn_is_about_what_the_turns_around_it_are_about():
    """In its section: what stands beyond an empty line is another matter; one line alone has no company."""
    lines = [f"Ann: the {PLACES[i % 8]} is fine." for i in range(30)]
    lines[15] = "Ben: when does the ferry leave?"
    question = Question("ferry")
    together, _ = question.relevance(lines, [(0, i) for i in range(30)])
    assert min(together[10:21]) > max(*together[:10], *together[21:])
    apart, _ = question.relevance(lines, [(i > 15, i) for i in range(30)])
    assert min(apart[10:16]) > max(apart[16:])
    alone, _ = question.relevance(lines, [(i, i) for i in range(30)])
    assert len({round(one, 9) for one in alone}) == 2
