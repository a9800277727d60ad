"""Decisions of compression, made once and replayed."""

from __future__ import annotations

import json
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.compressors.budgets import Ratio
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.decisions import Decisions
from ctxmem.compressors.lexical import Lexical
from ctxmem.errors import Unavailable
from ctxmem.stores.memory import MemoryCache
from ctxmem.testing import DeadScorer, WordCounter

PROSE = " ".join(
    f"The ship {i} of captain Name{i} (a guest) came to the harbour in {1800 + i},\n and then it left."
    for i in range(40)
)


class Slow(Lexical):
    """Counts its calls and takes its time."""

    calls = 0

    def score(self, texts, *, deadline=None):
        type(self).calls += 1
        threading.Event().wait(0.05)
        return super().score(texts, deadline=deadline)


def compressor(cache, *, tenant="a", scorer=None, **how) -> Compressor:
    return Compressor(WordCounter(), scorer or Lexical(), decisions=Decisions(cache, tenant), **how)


class TestReplay:
    @given(text=st.text(max_size=300) | st.lists(st.sampled_from(PROSE.split(" ")), max_size=120).map(" ".join))
    def test_is_the_same_to_the_byte(self, text):
        """Everything but the note that it is a replay."""
        shorten = compressor(MemoryCache())
        first, again = shorten(text, Ratio(0.5)), shorten(text, Ratio(0.5))
        assert not first.cached
        assert (first.text, first.dropped, first.reason, first.tokens_after) == (
            again.text,
            again.dropped,
            again.reason,
            again.tokens_after,
        )

    @pytest.mark.parametrize("text", [PROSE, json.dumps([{"name": f"row {i}"} for i in range(99)]), "short"])
    def test_asks_no_model(self, text):
        """A scorer that is gone cannot change what was decided; another process has the same cache."""
        cache = MemoryCache()
        first = compressor(cache)(text, Ratio(0.5))
        again = compressor(cache, scorer=DeadScorer(name=Lexical().name))(text, Ratio(0.5))
        assert again.cached
        assert again.text == first.text

    def test_keeps_no_word_of_the_text(self):
        """Whoever reads the cache learns offsets."""
        kept = {}

        class Open(MemoryCache):
            def put(self, tenant, key, value, *, ttl):
                kept[tenant, key] = value

        compressor(Open())(PROSE, Ratio(0.5))
        (value,) = kept.values()
        assert b"harbour" not in zlib.decompress(value)

    def test_tenants_share_nothing(self):
        """The same text of another tenant is decided anew."""
        cache = MemoryCache()
        compressor(cache)(PROSE, Ratio(0.5))
        with pytest.raises(Unavailable):
            compressor(cache, tenant="b", scorer=DeadScorer())(PROSE, Ratio(0.5))

    def test_two_embedders_of_one_type_share_no_decision(self):
        """Their names tell them apart: here they disagree about what a sentence is about."""
        cache = MemoryCache()

        class Likes:
            dimensions = 1

            def __init__(self, word: str) -> None:
                self.name, self._word = f"likes-{word}", word

            def embed(self, texts, *, query=False):
                return np.array([[1.0 if query or self._word in text else -1.0] for text in texts], dtype=np.float32)

        text = " ".join(
            f"Here {word} stands alone in a long and empty row." for word in ("oak", "elm", "ash", "fir") * 9
        )
        shorten = [compressor(cache, embedder=Likes(word)) for word in ("oak", "elm")]
        oak, elm = (one(text, Ratio(0.3), query="trees").text for one in shorten)
        assert oak.count("oak") > oak.count("elm")
        assert elm.count("elm") > elm.count("oak")

    def test_other_knobs_are_other_decisions(self):
        """Budget, unit and query; an error is not kept."""
        cache = MemoryCache()
        shorten = compressor(cache)
        outputs = [shorten(PROSE, Ratio(0.5)), shorten(PROSE, Ratio(0.3)), shorten(PROSE, Ratio(0.5), query="Name7?")]
        outputs.append(compressor(cache, unit="sentence")(PROSE, Ratio(0.2)))
        assert not any(made.cached for made in outputs)
        assert len({made.text for made in outputs}) == 4

    def test_threads_that_ask_at_once_share_one_decision(self):
        """With different ratios at the same time each gets its own."""
        Slow.calls = 0
        shorten = compressor(MemoryCache(), scorer=Slow())
        found: dict[int, str] = {}

        def work(i: int) -> None:
            found[i] = shorten(PROSE, Ratio(0.5 if i % 2 else 0.3)).text

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Slow.calls == 2
        assert {found[i] for i in range(1, 8, 2)} == {shorten(PROSE, Ratio(0.5)).text}
        assert {found[i] for i in range(0, 8, 2)} == {shorten(PROSE, Ratio(0.3)).text}
