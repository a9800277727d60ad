"""The scorer without a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.compressors.lexical import Lexical
from ctxmem.errors import Unavailable


def nats(text: str, lexical: Lexical | None = None) -> dict[str, float]:
    (scores,) = (lexical or Lexical()).score([text])
    spans = zip(scores.starts, scores.ends, scores.nats, strict=True)
    return {text[start:end]: value for start, end, value in spans}


def test_rare_long_words_tell_most():
    """Stop words and punctuation least."""
    told = nats("the river and the river and the Zambezi crossing.")
    assert told["Zambezi"] > told["river"] > told["the"] > told["."]


def test_a_rank_decides_where_the_caller_has_one():
    """The later a merge, the rarer the word; pieces add up."""
    ids = {"common": [100], "rare": [40_000], "pieces": [300, 300]}
    told = nats("common rare pieces", Lexical(rank=ids.__getitem__))
    assert told["rare"] > told["common"]
    assert told["pieces"] == pytest.approx(2 * 5.707, abs=0.01)


@given(st.text(max_size=200))
def test_tokens_are_ordered_and_cover_all_but_space(text):
    """Every character that is not whitespace belongs to one token."""
    (scores,) = Lexical().score([text])
    assert all(a < b for a, b in zip(scores.starts, scores.ends, strict=True))
    assert "".join(text[a:b] for a, b in zip(scores.starts, scores.ends, strict=True)) == "".join(text.split())
    assert all(value >= 0 for value in scores.nats)


def test_a_deadline_it_would_miss_is_refused_beforehand():
    """Rather than overrun."""
    with pytest.raises(Unavailable):
        Lexical().score(["x " * 1_000_000], deadline=0.001)
