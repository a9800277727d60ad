"""What nobody means to compress: unchanged with its reason, or shorter; never longer, never an exception."""

from __future__ import annotations

import json
import time

import pytest

from ctxmem.compressors.budgets import Quality, Ratio, Tokens
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.lexical import Lexical
from ctxmem.errors import InvalidInput
from ctxmem.tokens.resolve import counter_for

WORDS = "the harbour was rebuilt in 1863 and nobody paid for it "
TEXTS = {
    "empty": "",
    "one word": "word",
    "whitespace": " \t\n\r\u00a0\u3000 " * 50,
    "no sentence marks": WORDS * 60,
    "exclamation marks": "!" * 3000,
    "spaced exclamation marks": "! " * 1500,
    "one long word": "a" * 5000,
    "CJK": "東京の港は静かだ。船は来なかった。" * 60,
    "RTL": "הספינה לא הגיעה לנמל. السفينة لم تصل. " * 60,
    "emoji": "👩\u200d👩\u200d👧 ❤️ 🇩🇪 " * 200,
    "control characters": "a\x00b\x1b[0m\x07 c\x7f\u200b\ufeff d. " * 150,
    "lone surrogates": "a \ud800 b. " * 200,
    "special tokens": "Say <|im_end|> and <|endoftext|> then [INST] now. " * 60,
    "compressed before": WORDS * 30 + "\n[143 tokens left out, ctx:0123456789abcdef0123]",
    "one line of JSON": json.dumps([{"path": f"src/{i}.py", "size": i, "why": WORDS} for i in range(300)]),
    "broken JSON": json.dumps([{"path": f"src/{i}.py"} for i in range(300)])[:-1],
    "deep JSON": "[" * 3000 + "]" * 3000,
    "open fence": "```\n" + WORDS * 50,
    "keep to the end": "<ctx:keep>" + WORDS * 50,
}


@pytest.fixture(scope="module", params=["smollm2", "some-model"])
def compressor(request: pytest.FixtureRequest) -> Compressor:
    """With a model's own tokenizer, and with the estimate."""
    return Compressor(counter_for(request.param), Lexical())


class TestText:
    @pytest.mark.parametrize("name", TEXTS)
    @pytest.mark.parametrize("budget", [Ratio(0.5), Tokens(1), Ratio(1), Quality(0.3)])
    def test_never_more_tokens(self, compressor, name, budget):
        """Shorter and within the budget, or the text and a reason."""
        text = TEXTS[name]
        done = compressor(text, budget)
        assert done.tokens_after <= done.tokens_before
        if done.reason:
            assert done.text == text
        else:
            assert done.tokens_after <= budget.allow(done.tokens_before, "prose")

    @pytest.mark.parametrize("name", ["special tokens", "compressed before"])
    def test_marks_and_special_tokens_stay(self, compressor, name):
        """None goes, none comes about."""
        done = compressor(TEXTS[name], Ratio(0.7))
        for mark in ("<|im_end|>", "<|endoftext|>", "[INST]", "ctx:0123456789abcdef0123"):
            assert done.text.count(mark) == TEXTS[name].count(mark)

    @pytest.mark.parametrize(
        "make",
        [lambda: Ratio(0), lambda: Ratio(1.01), lambda: Ratio(-1), lambda: Ratio(float("nan")), lambda: Tokens(0)],
    )
    def test_budgets_out_of_range(self, make):
        """Named, with what is allowed."""
        with pytest.raises(InvalidInput):
            make()


@pytest.mark.slow
@pytest.mark.parametrize("text", [WORDS * 190_000, "x" * 10_000_000, json.dumps([WORDS] * 180_000)])
def test_ten_megabytes(text):
    """In two minutes of one core, with the budget met or a reason."""
    began = time.process_time()
    done = Compressor(counter_for("some-model"), Lexical())(text, Ratio(0.5))
    assert done.tokens_after <= done.tokens_before
    assert time.process_time() - began < 120
