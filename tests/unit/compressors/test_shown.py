"""What compression left out, as people see it, and answers traced back to the source."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

import ctxmem
from ctxmem.compressors.outcome import Compressed, Cut
from ctxmem.errors import InvalidInput

TEXT = (
    "The board met on Tuesday in the old customs house, and coffee was served as usual. The treasurer reported that "
    "income had fallen by 14 percent to 2.3 million euros. Several people said that this was a pity. The mooring fee "
    "for ships under 20 metres goes down from 80 to 65 euros on the first of June. "
) * 3


class Page(HTMLParser):
    """Takes a page's visible text apart: all of it, and what is struck through."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.whole = self.struck = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "pre" in self.open:
            self.whole += data
        if "del" in self.open:
            self.struck += data


class TestPage:
    def test_shows_the_source_and_what_was_left_out(self):
        """Every character once, the dropped ones struck through."""
        done = ctxmem.compress(TEXT, ratio=0.5)
        page = Page(done.diff_html())
        assert page.whole == TEXT
        assert page.struck == "".join(TEXT[cut.start : cut.end] for cut in done.dropped) != ""

    @pytest.mark.parametrize("text", ["<script>alert(1)</script> & more", "a {before} b", "\u202e\U0001f600 ünï", ""])
    def test_a_text_is_only_text(self, text):
        """Markup and placeholders in it stay what they are, and nothing is fetched."""
        page = Page(Compressed(9, 4, (Cut(0, len(text) // 2, '"><script>'),), source=text).diff_html())
        assert page.whole == text
        assert page.tags.isdisjoint({"script", "img", "link", "iframe"})


class TestExplanation:
    def test_names_every_stretch(self):
        """With its words and the reason."""
        done = ctxmem.compress(TEXT, ratio=0.5)
        head, *lines = done.explain().splitlines()
        assert f"{done.tokens_before:,} to {done.tokens_after:,} tokens" in head
        assert len(lines) == len(done.dropped)
        assert all(repr(TEXT[cut.start : cut.end]) in line for cut, line in zip(done.dropped, lines, strict=True))

    def test_says_why_nothing_changed(self):
        """The acceptance gate's reason."""
        assert ctxmem.compress("short", budget=10).explain().endswith("unchanged: within_budget")

    def test_of_messages(self):
        """Offsets count through the texts of all messages."""
        talk = [{"role": ("user", "assistant")[i % 2], "content": TEXT} for i in range(4)]
        done = ctxmem.compress([*talk, {"role": "user", "content": "And now?"}], ratio=0.4)
        assert done.dropped
        assert Page(done.diff_html()).whole == done.source == TEXT * 4 + "And now?"


class TestAlignment:
    SOURCE = "The fee for small ships, as was said at length, goes down to 65 euros."
    DONE = Compressed(16, 9, (Cut(24, 47, "tells little"),), source=SOURCE)

    def test_a_quotation_gets_back_what_was_cut_out_of_it(self):
        """The model never saw the middle; the source has it."""
        answer = "It says: small ships goes down TO 65 Euros!"
        (found,) = self.DONE.align(answer)
        assert answer[found.start : found.end] == "small ships goes down TO 65 Euros"
        assert self.SOURCE[found.source_start : found.source_end] == self.SOURCE[12:-1]

    @pytest.mark.parametrize("answer", ["", "ships", "nothing of this kind", "as was said at length"])
    def test_what_was_not_given_is_not_quoted(self, answer):
        """Words that were left out, or stand alone, are no quotations."""
        assert self.DONE.align(answer) == ()

    def test_repetitive_texts_take_no_time(self):
        """A word said fifty thousand times is looked for at a few places only."""
        text = "no " * 50_000
        found = Compressed(1, 1, source=text).align("no no no yes no no")
        assert [(one.start, one.end) for one in found] == [(0, 8), (13, 18)]


class TestPrompt:
    def test_has_llmlingua_s_keys(self):
        """And one more, the reason."""
        done = ctxmem.compress_prompt([TEXT, TEXT], "Answer briefly.", "What is the mooring fee?", rate=0.5)
        prompt = done["compressed_prompt"]
        assert set(done) == {
            "compressed_prompt", "origin_tokens", "compressed_tokens", "ratio", "rate", "saving", "reason"
        }  # fmt: skip
        assert prompt.startswith("Answer briefly.\n\n") and prompt.endswith("\n\nWhat is the mooring fee?")
        assert "65 euros" in prompt
        assert done["compressed_tokens"] == ctxmem.count_tokens(prompt) <= 0.51 * done["origin_tokens"]
        assert done["reason"] == ""

    def test_target_token_is_for_the_context(self):
        """Whatever stands around it."""
        done = ctxmem.compress_prompt(TEXT, "Answer briefly.", target_token=60, rate=0.9)
        assert ctxmem.count_tokens(done["compressed_prompt"].removeprefix("Answer briefly.\n\n")) <= 60

    @pytest.mark.parametrize("context", ["", [], ["", ""], " \n "])
    def test_no_context(self, context):
        """Nothing to do."""
        done = ctxmem.compress_prompt(context, question="Why?")
        assert done["compressed_prompt"].strip() == "Why?"
        assert done["reason"] and done["compressed_tokens"] == done["origin_tokens"]

    def test_no_room(self):
        """Instruction and question alone are over the rate: unchanged, with the reason."""
        done = ctxmem.compress_prompt("one two three", "word " * 50, rate=0.1)
        assert (done["reason"], done["saving"]) == ("budget_too_small", "0 tokens")

    @pytest.mark.parametrize("bad", [{"context": 3}, {"context": [3]}, {"question": None}, {"rate": 2}, {"rate": "x"}])
    def test_wrong_input(self, bad):
        """Named, before anything is done."""
        with pytest.raises(InvalidInput):
            ctxmem.compress_prompt(**{"context": TEXT, **bad})


class TestOptions:
    def test_a_query_decides(self):
        """What answers it stays."""
        asked = ctxmem.compress(TEXT[: len(TEXT) // 3], ratio=0.4, query="What is the mooring fee for ships?")
        assert "65 euros" in asked.text

    @pytest.mark.parametrize(
        ("how", "error"), [({"query": 3}, InvalidInput), ({"rtaio": 1}, TypeError), ({}, InvalidInput)]
    )
    def test_wrong_ones(self, how, error):
        """Unknown, of the wrong type, missing."""
        with pytest.raises(error):
            ctxmem.compress(TEXT, **how)
