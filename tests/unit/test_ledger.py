"""The pure part of the ledger: chains and the worth of an epoch."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ctxmem.ledger import CacheTerms, chain, gain, seed
from ctxmem.report import stable_prefix

tokens = st.integers(0, 100_000)
turns = st.integers(1, 300)


class TestChain:
    def test_a_hash_names_the_whole_history(self):
        """The same message after another history has another hash."""
        one, two = chain(seed("s"), [b"a", b"x"]), chain(seed("s"), [b"b", b"x"])
        assert one[1] != two[1]
        assert one == chain(seed("s"), [b"a", b"x"])

    def test_seeds_do_not_run_together(self):
        """`("ab", "c")` and `("a", "bc")` are two roots."""
        assert seed("ab", "c") != seed("a", "bc")


class TestGain:
    def test_break_even_is_the_papers(self):
        """Without counting the written delta itself: R = ((w - r) / r) * S / dT turns pay for the rewrite."""
        terms = CacheTerms(read=0.1, write=1.25)
        saved, suffix = 10_000, 20_000
        even = 1 + (1.15 * (suffix + saved) - 1.25 * saved) / (0.1 * saved)
        assert math.isclose(0, gain(saved, suffix, turns=int(even), idle=0, terms=terms), abs_tol=0.1 * saved)
        assert gain(saved, suffix, turns=int(even) + 1, idle=0, terms=terms) > 0
        assert gain(saved, suffix, turns=int(even) - 1, idle=0, terms=terms) < 0

    @given(tokens, tokens, turns)
    def test_a_cold_cache_never_loses(self, saved, suffix, turns):
        """When nothing is cached there is nothing to rewrite."""
        assert gain(saved, suffix, turns=turns, idle=math.inf, terms=CacheTerms()) >= 0

    @given(tokens, tokens, turns)
    def test_without_a_cache_every_saving_counts(self, saved, suffix, turns):
        """Upstreams that cache nothing price every token alike."""
        assert saved * turns == gain(saved, suffix, turns=turns, idle=0, terms=CacheTerms(kind="none"))

    @given(tokens, tokens, st.floats(0, 1e4), st.floats(0, 1e4))
    def test_a_colder_cache_is_never_worth_less(self, saved, suffix, one, two):
        """Gain grows with idle time."""
        cold, warm = max(one, two), min(one, two)
        terms = CacheTerms()
        assert gain(saved, suffix, turns=4, idle=cold, terms=terms) >= gain(
            saved, suffix, turns=4, idle=warm, terms=terms
        )


def test_the_stable_prefix_ends_at_the_first_difference():
    """What comes after it does not count, equal or not."""
    assert stable_prefix([(b"a", 3), (b"b", 4), (b"c", 5)], [(b"a", 3), (b"x", 9), (b"c", 5)]) == 3
    assert stable_prefix([], [(b"a", 3)]) == 0
