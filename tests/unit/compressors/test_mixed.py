"""Laws of compression over generated mixed texts: prose, code, JSON, XML, tables, marks, many scripts.

Ten thousand of them run under `make test-all`; a few here.
"""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctxmem import chat
from ctxmem.compressors import protect
from ctxmem.compressors.budgets import Ratio, Tokens
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.structured import is_json
from ctxmem.errors import NotFound
from ctxmem.ids import HANDLE_DIGITS, item_of_artifact
from ctxmem.manager.reversible import Reversible
from ctxmem.tokens.resolve import counter_for

COUNTERS = ("smollm2", "minilm", "gpt-4o", "gpt-4", "some-model")
"""Byte-level BPE, WordPiece, two of OpenAI's and the estimate."""

TEXT = (
    "the harbour of Stornoway was not rebuilt in 1863 for 40,000 pounds, it said; Dr. Smith (a guest) never paid "
    "3.5 kg don't https://a.example/x?y=1 /etc/hosts error: 0f3ab2c9 2024-05-01 “quoted words” 東京の港は静かだ。 "
    "שלום مرحبا 👩\u200d👩\u200d👧 ❤️ \x00\x1b[0m <|im_end|> !!! [1] f(x) naïve e\u0301 {gap} `ls -l`"
)
WORDS = st.sampled_from(TEXT.split(" "))
PROSE = st.lists(WORDS, min_size=1, max_size=60).map(" ".join)
VALUES = st.recursive(
    st.none() | st.integers() | PROSE,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=6), inner, max_size=5),
    max_leaves=20,
)
BLOCKS = st.one_of(
    PROSE,
    PROSE,
    st.text(max_size=80),
    st.lists(WORDS, max_size=12).map(lambda words: "```py\n" + "\n".join(words) + "\n```"),
    VALUES.map(json.dumps),
    st.lists(WORDS, min_size=2, max_size=8).map(lambda words: "\n".join(f"| {word} | 1 |" for word in words)),
    st.lists(WORDS, max_size=8).map(lambda words: "<rows>" + "".join(f"<r>{word}</r>" for word in words) + "</rows>"),
    PROSE.map(lambda text: f"<ctx:keep>{text}</ctx:keep>"),
    st.just("[12 tokens left out, ctx:0123456789abcdef0123]"),
)
TEXTS = st.one_of(
    st.lists(BLOCKS, max_size=6).map("\n\n".join),
    st.lists(BLOCKS, max_size=3).map(" ".join),
    VALUES.map(json.dumps),
)


def subsequence(part: str, whole: str) -> bool:
    """Whether all characters of the part stand in the whole in order."""
    rest = iter(whole)
    return all(char in rest for char in part)


def law(text: str, model: str, share: float, query: str) -> None:
    """All that is promised of one text under one tokenizer."""
    counter = counter_for(model)
    before = counter.texts([text])[0]
    budget = Tokens(max(1, int(share * before)))
    done = Compressor(counter, Lexical())(text, budget, query=query)
    assert done.text is not None
    assert done.tokens_after == counter.texts([done.text])[0] <= before
    if done.reason:
        assert done.text == text
        return
    assert done.tokens_after <= budget.number
    if is_json(text):
        json.loads(done.text)
        assert json.loads(done.text).__class__ is json.loads(text).__class__
        return
    assert subsequence(done.text, text)
    spans = [text[span.start : span.end] for span in protect.hard(text)]
    at = 0
    for span in spans:
        at = done.text.index(span, at) + len(span)


def restores(text: str) -> None:
    """The original behind a mark is the source, and a marked JSON text still is JSON."""
    kept: dict[str, bytes] = {}

    def keep(content: bytes) -> str:
        digest = sha256(content).hexdigest()
        kept[item_of_artifact(digest[:HANDLE_DIGITS])] = content
        return digest

    def find(item: str) -> bytes:
        if item not in kept:
            raise NotFound("nothing there")
        return kept[item]

    undone = Reversible(keep, find)
    counter = counter_for("gpt-4o")
    done = undone(Compressor(counter, Lexical()), text, Ratio(0.5))
    assert done.tokens_after == counter.texts([done.text or ""])[0]
    for content in kept.values():
        handle = done.text[done.text.rindex("ctx:") :][: 4 + HANDLE_DIGITS] if done.text else ""
        assert undone.answer({"handle": handle}) == text == chat.decode(content)["content"]
        assert not is_json(text) or json.loads(done.text or "")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXTS, share=st.floats(0.05, 0.95), query=st.sampled_from(["", "", "Who never paid in Stornoway?"]))
@pytest.mark.parametrize("model", COUNTERS)
def test_laws(model: str, text: str, share: float, query: str) -> None:
    """Budget, hard spans, subsequence, JSON."""
    law(text, model, share, query)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXTS)
def test_restores(text: str) -> None:
    """Exactly."""
    restores(text)


@pytest.mark.parametrize("first", [None, True, "a", 1, [], {}])
def test_marked_json_still_parses(first: object) -> None:
    """Whatever it begins with: what is left need not look like JSON at first sight."""
    restores(json.dumps([first, first, {"a": {f"key {number}": [None] * 9 for number in range(9)}}]))


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXTS, share=st.floats(0.05, 0.95), query=st.sampled_from(["", "", "Who never paid in Stornoway?"]))
def test_ten_thousand(text: str, share: float, query: str) -> None:
    """Each text under all five tokenizers, and restored."""
    for model in COUNTERS:
        law(text, model, share, query)
    restores(text)
