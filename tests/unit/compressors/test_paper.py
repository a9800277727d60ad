"""The published rule; beside the package itself it is tested in `tests.parity.test_selective_context`."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ctxmem
from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.paper import Published, percentile, spread
from ctxmem.errors import InvalidInput
from ctxmem.ports import TokenScores

TEXT = "The treaty was signed in Paris.  It ended\nthe war? Nobody knew then. Dr. Smith e.g. did not."


def scores(*nats: float) -> TokenScores:
    return TokenScores(tuple(range(len(nats))), tuple(range(1, len(nats) + 1)), nats)


class TestCall:
    @pytest.mark.parametrize("level", ["sent", "phrase", "token"])
    def test_keeps_units_at_or_above_the_percentile(self, level):
        """At 0 all stay, at 1 the most informative; what went is returned."""
        published = ctxmem.selective_context("lexical")
        everything, gone = published(TEXT, reduce_ratio=0.0, reduce_level=level)
        assert gone == []
        half, gone = published(TEXT, 0.5, level)
        assert 0 < len(half) < len(everything)
        assert gone
        assert published(TEXT, 1.0, level)[0].strip()

    def test_defaults_are_the_package_s(self):
        """A third of the phrases."""
        published = Published(Lexical())
        assert published(TEXT) == published(TEXT, reduce_ratio=0.35, reduce_level="phrase")

    @pytest.mark.parametrize("text", ["", " \n ", "!!!", "word", "漢字。"])
    def test_next_to_nothing(self, text):
        """No crash where the package has one."""
        assert isinstance(Published(Lexical())(text)[0], str)

    @pytest.mark.parametrize(
        ("text", "ratio", "level"), [(None, 0.5, "phrase"), ("a", 1.5, "phrase"), ("a", True, "sent"), ("a", 0.5, "x")]
    )
    def test_bad_arguments(self, text, ratio, level):
        """Each is named."""
        with pytest.raises(InvalidInput):
            Published(Lexical())(text, ratio, level)

    def test_another_language(self):
        """The package knows two."""
        with pytest.raises(InvalidInput):
            ctxmem.selective_context(lang="fr")


class TestSpread:
    def test_a_token_over_two_units_is_shared(self):
        """The package's walk, one case of each branch."""
        assert spread(["ab", "c", "def"], scores(2.0, 4.0, 6.0), ["ab", "cd", "ef"]) == [2.0, 3.5, 3.0]

    def test_a_unit_without_a_token_has_no_score(self):
        """NaN, which is never below the threshold."""
        assert math.isnan(spread(["a"], scores(1.0), ["a", "b"])[1])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_percentile_is_numpy_s(values, share):
    """`numpy.nanpercentile`, by which the package decides."""
    numpy = pytest.importorskip("numpy")
    assert percentile([*values, math.nan], share) == pytest.approx(numpy.nanpercentile(values, share * 100), abs=1e-6)
