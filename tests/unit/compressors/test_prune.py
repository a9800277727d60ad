"""The mechanics of pruning: exact budgets, source slices, refusals."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctxmem.compressors import protect
from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.prune import Prune, Pruned
from ctxmem.compressors.ranking import Weights, worth
from ctxmem.compressors.units import SPLITS
from ctxmem.ports import TokenScores
from ctxmem.testing import LengthScorer, WordCounter

COUNT = WordCounter()
PIECES = (
    'The|river|of|Paris|1998|not|(|old|)|.|,|\n|\n\n|`a b`|ERROR:|日本語|の|😀|שלום|\x00|a_b|{|}|!|we|42 km|...|"|?'
)
WORDS = st.sampled_from([*PIECES.split("|"), "<|im_end|>"])
TEXTS = st.lists(st.tuples(WORDS, st.sampled_from([" ", "", "  ", "\t"])), max_size=80).map(
    lambda pairs: "".join(word + space for word, space in pairs)
)


class CharacterCounter(WordCounter):
    """A counter for which a token is three characters, so that tokens straddle units and nothing adds up."""

    def texts(self, texts):
        return [(len(text) + 2) // 3 for text in texts]


def prune(text: str, share: float, *, count=COUNT, how: Prune | None = None) -> Pruned:
    how = how or Prune(min_saved=1, min_share=0)
    (pruned,) = how([text], Lexical().score([text]), lambda tokens: int(share * tokens), count)
    return pruned


def subsequence(part: str, whole: str) -> bool:
    characters = iter(whole)
    return all(char in characters for char in part)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_an_element_of_prose_goes_with_all_that_is_in_it(share):
    """Its tags stay in pairs, around what is left; none is empty."""
    items = "<li> Item 0 weighs <em>nothing</em> . </li> "
    items += "".join(f"<li> Item {i} weighs {i * 7} stones and more . </li> " for i in range(1, 30))
    page = f"<h1> On stones </h1> <ul> {items}</ul> <p> That is all of it , as far as anybody knows . </p>"
    left = prune(page, share).text
    assert left != page
    for name in ("h1", "ul", "li", "p"):
        assert left.count(f"<{name}>") == left.count(f"</{name}>") <= page.count(f"<{name}>")
        assert not re.search(rf"<{name}>\s*</{name}>", left)
    assert "<em>" in left and "</em>" in left  # tags inside of a line are hard spans
    assert left.count("<li>") < 30 or share > 0.5


class TestLaws:
    @pytest.mark.parametrize("unit", SPLITS)
    @pytest.mark.parametrize("count", [COUNT, CharacterCounter()], ids=["words", "characters"])
    @given(text=TEXTS, share=st.floats(0.05, 1))
    @example(text="!!!! !!!", share=0.5)
    @example(text="a\nb. c", share=0.7)
    def test_a_pruning_fits_and_is_made_of_the_source(self, unit, count, text, share):
        """Within budget by the counter, a subsequence of the source, hard spans byte for byte; or the source itself."""
        pruned = prune(text, share, count=count, how=Prune(unit, min_saved=1, min_share=0))
        assert pruned.tokens_before == count.texts([text])[0]
        assert pruned.tokens_after == count.texts([pruned.text])[0]
        if pruned.refusal:
            assert (pruned.text, pruned.dropped) == (text, ())
            return
        assert pruned.tokens_after <= int(share * pruned.tokens_before) < pruned.tokens_before
        assert subsequence(pruned.text, text)
        position = 0
        for span in protect.hard(text):
            piece = text[span.start : span.end]
            position = pruned.text.index(piece, position) + len(piece)

    @given(text=TEXTS)
    def test_dropped_and_kept_make_up_the_source(self, text):
        """Taking the dropped spans out of the source leaves the same words."""
        pruned = prune(text, 0.6)
        rest, at = [], 0
        for start, end in pruned.dropped:
            assert at <= start < end <= len(text)
            rest.append(text[at:start])
            at = end
        assert "".join("".join([*rest, text[at:]]).split()) == "".join(pruned.text.split())

    def test_texts_are_pruned_on_their_own(self):
        """A text's neighbours change nothing about it: what was sent before stays as it was sent."""
        texts = [" ".join(f"w{i * j}" for i in range(60)) + f". The {j} end." for j in range(2, 6)]
        how = Prune()
        together = how(texts, Lexical().score(texts), lambda tokens: tokens // 2, COUNT)
        alone = [how([text], Lexical().score([text]), lambda tokens: tokens // 2, COUNT)[0] for text in texts]
        assert together == alone

    def test_every_process_gives_the_same_bytes(self):
        """Whatever the hash seed."""
        code = (
            "from ctxmem.compressors.prune import Prune; from ctxmem.compressors.lexical import Lexical\n"
            "from ctxmem.testing import WordCounter\n"
            "t = ' '.join(f'word{i % 37} the N{i % 11} of {i},' for i in range(300))\n"
            "print(Prune()([t], Lexical().score([t]), lambda n: n // 2, WordCounter())[0])"
        )
        runs = {
            subprocess.run(
                [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
            ).stdout
            for seed in ("0", "1", "271828")
        }
        assert len(runs) == 1


class TestBudget:
    def test_is_used_up(self):
        """What is left over is less than a phrase."""
        text = " ".join(f"The treaty{i} of Town{i} was signed, then broken again in {1000 + i}." for i in range(50))
        for share in (0.2, 0.5, 0.8):
            pruned = prune(text, share)
            assert 0 <= int(share * pruned.tokens_before) - pruned.tokens_after <= 4

    def test_counts_few_renderings(self):
        """About ten calls of the counter for all texts together, for a tokenizer is slow."""
        calls: list[int] = []

        class Counting(WordCounter):
            def texts(self, texts):
                calls.append(len(texts))
                return WordCounter.texts(self, texts)

        texts = [" ".join(f"Name{i * j} and the {i} others," for i in range(400)) for j in range(1, 21)]
        Prune()(texts, Lexical().score(texts), lambda tokens: tokens // 2, Counting())
        assert len(calls) <= 15


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "share", "refusal"),
        [
            ("short and sweet", 1.0, "within_budget"),
            ("", 0.5, "within_budget"),
            ("```\n" + "code line\n" * 50 + "```\nand prose", 0.3, "hard_spans_over_budget"),
            ("!!! " * 50, 0.5, "nothing_to_prune"),
            ("word", 0.5, "budget_too_small"),
            ("some twenty words " * 10, 0.9, "no_gain"),
        ],
    )
    def test_name_their_reason(self, text, share, refusal):
        """The text comes back as it was."""
        pruned = prune(text, share, how=Prune())
        assert (pruned.refusal, pruned.text) == (refusal, text)

    def test_half_a_pair_of_brackets_is_not_let_through(self):
        """Whole sentences carry their brackets along; what would leave half a pair behind is refused."""
        text = "Anna opens (here. Berta closes) it. Carla left."
        ends = (18, 35, 48)
        scores = TokenScores((0, 19, 36), ends, (9.0, 1.0, 5.0))
        (pruned,) = Prune("sentence", Weights(salience=0, length=0), min_saved=1)([text], [scores], lambda _: 5, COUNT)
        assert (pruned.refusal, pruned.text) == ("unbalanced", text)


class TestRanking:
    def test_self_information_is_summed_over_a_unit(self):
        """Of two phrases the one with more nats in all stays, though the other has more for each token."""
        text = "alpha beta gamma delta, omega"
        scores = TokenScores((0, 6, 11, 17, 24), (5, 10, 16, 23, 29), (2.0, 2.0, 2.0, 2.0, 5.0))
        (pruned,) = Prune(weights=Weights(salience=0, length=0), min_saved=1)([text], [scores], lambda _: 4, COUNT)
        assert pruned.text == "alpha beta gamma delta,"

    def test_numbers_and_names_outlive_filler(self):
        """What stands out stays."""
        text = "well maybe they went along, and Ada Lovelace paid 3,000 dollars, which then really was quite it " * 2
        assert {"3,000", "Lovelace"} <= set(prune(text, 0.4).text.replace(",,", ",").split())

    def test_an_error_line_outlives_the_rest_of_a_log(self):
        """Lines that repeat go first, the alarm last."""
        lines = [f"2024-01-01 12:00:{i:02} INFO worker {i} is ready" for i in range(50)]
        lines[20] = "2024-01-01 12:00:20 ERROR disk full"
        pruned = prune("\n".join(lines), 0.1, how=Prune("block"))
        assert "ERROR disk full" in pruned.text
        assert set(pruned.text.splitlines()) <= set(lines)

    def test_a_negation_keeps_what_it_negates(self):
        """Never half of it."""
        text = "It was a long day and the people of the town were glad. You must not open the valve. " * 2
        assert "not open" in prune(text, 0.5).text

    def test_a_phrase_whose_words_are_kept_already_goes_first(self):
        """Every name once before any name twice."""
        names = ("Lisbon", "Warsaw", "Dublin", "Prague")
        text = "\n".join(f"{name} grew, {name} shrank, {name} fell, {name} rose" for name in names)
        left = prune(text, 0.3).text
        assert all(name in left for name in names)

    def test_a_paragraphs_first_sentence_leads(self):
        """Of sentences that tell as much the first one stays, in paragraphs and not in short lines."""
        said = "marble houses quarrelled, copper bridges slept, velvet markets opened"
        paragraph = " ".join(f"{word}{said}." for word in ("Now ", "Then ", "Here ", "There "))
        text = f"{paragraph}\n\n{paragraph}"
        units = SPLITS["phrase"](text)
        scores = TokenScores(tuple(u.body for u in units), tuple(u.end for u in units), (1.0,) * len(units))
        found = worth(text, units, scores, Weights(), phrases=True)
        by_start = {unit.body: score for unit, score in zip(units, found.scores, strict=True)}
        first, second = text.index("marble"), text.index("marble", text.index("Then"))
        assert by_start[first] > by_start[second] == by_start[text.index("marble", text.index("Here"))]

    def test_a_gap_keeps_its_newline(self):
        """Paragraphs stay apart."""
        text = "Rome fell slowly.\n\nand so it was for them\n\nParis rose quickly."
        assert prune(text, 0.7).text == "Rome fell slowly.\n\nParis rose quickly."

    def test_a_broken_score_counts_as_none(self):
        """NaN neither wins nor spreads."""
        text = "alpha the beta"
        scores = TokenScores((0, 6, 10), (5, 9, 14), (float("nan"), 1.0, 9.0))
        (pruned,) = Prune(weights=Weights(salience=0, length=0), min_saved=1)([text], [scores], lambda _: 1, COUNT)
        assert pruned.text.strip() == "beta"


@pytest.mark.parametrize(
    "text",
    [
        "x" * 25_000,
        "a," * 12_500,
        "(" * 25_000,
        "日本語" * 8_000,
        "a.b" * 8_000,
        "\n" * 25_000,
        "-" * 25_000,
        "1" * 25_000,
        '"A b ' * 5_000,
        "A. " * 8_000,
    ],
    ids=lambda text: text[:3],
)
def test_one_long_line_ends_soon(text):
    """25 KB without a space, of any kind, is pruned or refused like any other text."""
    pruned = prune(text, 0.5, count=CharacterCounter())
    assert pruned.refusal or pruned.tokens_after <= pruned.tokens_before // 2


def test_a_hundred_thousand_tokens():
    """Long input is pruned too; the work grows with its length alone."""
    text = " ".join(f"Item {i} of the list was sent to Town{i % 97}." for i in range(10_000))
    pruned = prune(text, 0.5)
    assert (pruned.refusal, pruned.tokens_before) == ("", 90_000)


def test_scores_by_any_scorer():
    """Pruning takes what the port gives."""
    text = "a bb ccc, dddddddddd " * 20
    (pruned,) = Prune()([text], LengthScorer().score([text]), lambda tokens: tokens // 2, COUNT)
    assert pruned.tokens_after == 40
