"""Counters that cost nothing and make budgets easy to check."""

from __future__ import annotations

from ctxmem.testing import WordCounter


class CharacterCounter(WordCounter):
    """A counter for which every character is a token."""

    def texts(self, texts):
        return [len(text) for text in texts]
