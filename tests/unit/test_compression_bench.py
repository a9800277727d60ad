"""The yardstick of `bench.compression`: measures, baselines and intervals on texts small enough to check by hand."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.pruning.cases import Case, Question
from bench.pruning.kept import KeptResults
from bench.pruning.measures import Words, answer_words, gold_span, mean, negations, numbers, survives
from bench.pruning.rows import baselines, bm25_scores, by_sentences, by_words, ranked
from ctxmem.testing import WordCounter

TEXT = "Ada was born in London in 1815. She never met Byron again. Her notes on the engine have 65 pages."
QUESTION = Question("Where was Ada born?", "London", ((0, 31),), verbatim=True)
CASE = Case("own", TEXT, (QUESTION,))


class TestMeasures:
    def test_the_source_itself_keeps_everything(self) -> None:
        """The row `none` is 1 in every column."""
        per_question = [measure(CASE, QUESTION, TEXT) for measure in (survives, answer_words, gold_span)]
        assert [*per_question, numbers(CASE, TEXT), negations(CASE, TEXT)] == [1.0] * 5

    def test_nothing_keeps_nothing(self) -> None:
        """An empty output is 0 in every column."""
        per_question = [measure(CASE, QUESTION, "") for measure in (survives, answer_words, gold_span)]
        assert [*per_question, numbers(CASE, ""), negations(CASE, "")] == [0.0] * 5

    def test_an_answer_survives_as_whole_words_only(self) -> None:
        """`Londoner` is not `London`."""
        assert survives(CASE, QUESTION, "ada, LONDON!") == 1.0
        assert survives(CASE, QUESTION, "a Londoner") == 0.0

    def test_a_question_whose_answer_is_not_in_the_text_says_nothing(self) -> None:
        """Such questions are left out of the mean instead of counting as lost."""
        stranger = Question("Who?", "Charles Babbage", (), verbatim=False)
        assert survives(CASE, stranger, TEXT) is None
        assert answer_words(CASE, stranger, TEXT) is None
        assert gold_span(CASE, stranger, TEXT) is None

    def test_a_gold_passage_counts_its_own_words_only(self) -> None:
        """Content words before offset 31: Ada, born, London, 1815."""
        assert gold_span(CASE, QUESTION, "Ada in 1815. Her notes on the engine have 65 pages.") == 0.5

    def test_a_negation_needs_the_word_after_it(self) -> None:
        """`never` alone turns nothing round."""
        assert negations(CASE, "She never met Byron") == 1.0
        assert negations(CASE, "She never Byron") == 0.0

    def test_a_contraction_negates_too(self) -> None:
        """`don't` is two words, of which the second needs the word after it."""
        case = Case("own", "I don't agree at all.", ())
        assert negations(case, "don't agree") == 1.0
        assert negations(case, "I do agree") == 0.0

    def test_a_word_that_was_made_up_costs_nothing_behind_it(self) -> None:
        """An output that opens with the source's last word has all the others still in place."""
        source = Words.of("one two three four five six")
        assert source.kept("six one two four five") == [True, True, False, True, True, False]

    def test_what_is_kept_is_a_longest_common_subsequence(self) -> None:
        """As long as the textbook's table says, in order, over random words."""
        draw = random.Random(3)
        for _ in range(200):
            source, output = ([draw.choice("abcde") for _ in range(draw.randint(0, 12))] for _ in range(2))
            kept = Words.of(" ".join(source)).kept(" ".join(output))
            chosen = [word for word, stays in zip(source, kept, strict=True) if stays]
            rest = iter(output)
            assert all(word in rest for word in chosen)
            assert len(chosen) == _common(source, output)

    def test_each_word_of_an_output_stands_for_one_word_of_the_source(self) -> None:
        """In order: the second `in` of the output is the second of the source."""
        assert Words.of("in a in b in").kept("in in b") == [True, False, True, True, False]


class TestRows:
    @pytest.mark.parametrize("name", ["head", "tail", "random word", "random sentence", "BM25 sentences"])
    @pytest.mark.parametrize("allowed", [0, 1, 7, 13])
    def test_a_baseline_holds_the_allowance(self, name: str, allowed: int) -> None:
        """Rows that took more would win by it."""
        counter = WordCounter()
        output = baselines(counter)[name](TEXT, QUESTION.query, allowed)
        assert counter.texts([output])[0] <= allowed

    def test_pieces_put_together_are_the_text(self) -> None:
        """Nothing is lost by cutting."""
        assert "".join(by_words(TEXT).pieces) == TEXT == "".join(by_sentences(TEXT).pieces)

    def test_bm25_puts_the_sentence_of_the_rare_word_first(self) -> None:
        """Only the third has `engine`."""
        pieces = by_sentences(TEXT).pieces
        assert ranked(bm25_scores(pieces, "the engine"))[0] == 2


class TestMean:
    def test_an_interval_holds_its_mean(self) -> None:
        """And is one point when all texts agree."""
        spread = mean([(text, float(text % 2)) for text in range(20)])
        assert spread is not None and spread.low < spread.value == 0.5 < spread.high
        same = mean([(0, 1.0), (1, 1.0)])
        assert same is not None and (same.low, same.value, same.high, same.n) == (1.0, 1.0, 1.0, 2)

    def test_of_nothing_there_is_no_mean(self) -> None:
        """A column without questions stays empty."""
        assert mean([]) is None


def _common(source: list[str], output: list[str]) -> int:
    """Length of the longest common subsequence, by the textbook's table."""
    table = [[0] * (len(output) + 1) for _ in range(len(source) + 1)]
    for i, left in enumerate(source):
        for j, right in enumerate(output):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_kept_results_are_made_once_and_survive_the_process(tmp_path: Path) -> None:
    """A second run reads what the first one worked out; another question is another result."""
    made: list[str] = []

    def make() -> str:
        made.append("x")
        return "shorter ✂"

    path = tmp_path / "kept.sqlite"
    assert KeptResults(path).text("peer", ["a"], make) == "shorter ✂"
    assert KeptResults(path).text("peer", ["a"], make) == "shorter ✂"
    KeptResults(path).text("peer", ["b"], make)
    assert len(made) == 2
