"""What pruning must not touch, and what it should touch last."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.compressors import protect


def hard(text: str) -> list[str]:
    return [text[span.start : span.end] for span in protect.hard(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see\n```py\nx = 1\n```\nand so on", ["```py\nx = 1\n```"]),
        ("see\n~~~\nx\n~~~\n", ["~~~\nx\n~~~"]),
        ("an open\n```\nfence never closed", ["```\nfence never closed"]),
        ("a fence in\n````\n```\nx\n```\n````\n", ["````\n```\nx\n```\n````"]),
        ("inline ```x = 1``` and ```on", ["```x = 1```", "```on"]),
        ("run `make test` and ``a b``", ["`make test`", "``a b``"]),
        ("so <ctx:keep>keep this, all</ctx:keep> not this", ["<ctx:keep>keep this, all</ctx:keep>"]),
        ("cut [... ctx:9f2c01 143 tok] here", ["[... ctx:9f2c01 143 tok]"]),
        ("a<|im_end|>b<|endoftext|>", ["<|im_end|>", "<|endoftext|>"]),
        ("[INST] be good [/INST]</s>", ["[INST]", "[/INST]", "</s>"]),
        ('it said {"a": [1, {"b": "}"}]} twice', ['{"a": [1, {"b": "}"}]}']),
        ('rows [{"a": 1}, {"a": 2}] here', ['[{"a": 1}, {"a": 2}]']),
        ("a citation [1] stays prose", []),
        ("| a | b |\n|---|---|\n| 1 | 2 |\nprose", ["| a | b |\n|---|---|\n| 1 | 2 |\n"]),
        ("a\tb\tc\n1\t2\t3\n4\t5\t6\nprose", ["a\tb\tc\n1\t2\t3\n4\t5\t6\n"]),
        ("<r><a>1</a><b>2</b><c>3</c></r> prose", ["<r><a>1</a><b>2</b><c>3</c></r>"]),
        ("if a < b and c > d then", []),
        ("", []),
    ],
)
def test_hard_spans_are_found_by_structure(text, expected):
    """Code, data, tables, marks and special-token text stay byte for byte."""
    assert hard(text) == expected


def test_paragraphs_and_list_items_are_prose():
    """However many there are their words may go, and their tags frame them; the rows of a table stay whole."""
    page = "<P> Paris is old . </P> <Ul> " + "<Li> A river , and a bridge . </Li> " * 20 + "</Ul>"
    spans, elements = protect.spans(page)
    assert not spans
    assert Counter(page[span.start : span.end] for span in elements) == {
        "<P>": 1,
        "</P>": 1,
        "<Ul>": 1,
        "<Li>": 20,
        "</Li>": 20,
        "</Ul>": 1,
    }
    assert all(elements[other] == span and span != other for span, other in elements.items())
    table = "<Table> " + "<Tr> <Td> 1 </Td> <Td> Bern </Td> </Tr> " * 4 + "</Table>"
    assert [text for text in hard(f"{table} {page} {table}") if "Bern" in text] == [table, table]


@pytest.mark.parametrize(
    "page", ["a<p>b</p>c", "<p>a<p>b", "<p>a</P>", "`<p>` a </p>", "<p>a</div></p>b", "<em>a</em>"]
)
def test_tags_that_frame_no_paragraph_stay(page):
    """Where words would run together, where one of the two is missing or is code, and inside of a line."""
    assert not protect.spans(page)[1]


def test_tags_around_prose_stay_and_the_prose_does_not():
    """A document wrapped in a tag can still be shortened."""
    prose = "A long account of what happened that day, told at length and without haste. " * 3
    assert hard(f"<document>{prose}</document>") == ["<document>", "</document>"]


@pytest.mark.parametrize(
    "hostile", ["[" * 25_000, "{" * 25_000, '{"a":' * 5_000, "`" * 25_000, "<a>" * 8_000, "|" * 25_000]
)
def test_hostile_nesting_ends_soon(hostile):
    """A long run of openers neither hangs nor overflows the stack."""
    assert all(0 <= span.start < span.end <= len(hostile) for span in protect.hard(hostile))


@given(st.text(alphabet='ab `~<>|[]{}":,1\n\t/ctx:keep', max_size=80))
def test_hard_spans_are_ordered_and_apart(text):
    """They can be cut out one after the other."""
    spans = protect.hard(text)
    assert all(a.end <= b.start for a, b in pairwise(spans))


def test_quotes_and_error_lines_are_soft():
    """They go after the rest of the prose."""
    text = 'He said "we will not sell".\nERROR: disk is full\nfine'
    assert {text[s.start : s.end] for s in protect.soft(text)} == {'"we will not sell"', "ERROR: disk is full"}


class TestBalanced:
    def test_a_torn_fence_is_seen(self):
        """Half a code fence changes how everything after it reads."""
        assert not protect.balanced("```\na\n```", "```\na")

    def test_brackets_that_never_matched_do_not_count(self):
        """A list numbered 1) 2) 3) may lose an item."""
        assert protect.balanced("1) a 2) b", "2) b")

    def test_a_special_token_that_came_about_is_seen(self):
        """What stood between its halves was left out."""
        assert not protect.balanced("<|im_日本end|> so", "<|im_end|> so")
