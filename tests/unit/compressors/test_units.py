"""Units tile the source, whatever it is."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctxmem.compressors.units import SPLITS, blocks, phrases, sentences

SCRIPTS = (
    "aB1 \n\t.,;!?()[]{}\"'`~|<>-_/\\:@#$%&*+=…。！？「」日本語のはをカタ中文的汉字שלוםمرحباहिन्दीไทย😀👩🏽"
    "\u0301\u200d\ufeff\x00\x1f"
)


def cut(split, text: str) -> list[str]:
    return [text[unit.body : unit.end] for unit in split(text)]


@pytest.mark.parametrize("name", SPLITS)
@given(text=st.one_of(st.text(alphabet=SCRIPTS, max_size=200), st.text(max_size=100)))
@example(text="")
@example(text=" \n ")
@example(text="!!!!")
@example(text="<|im_end|> a `b` c")
@example(text="(a [b) c]")
@example(text="<ul> <li> a (b </li> <li>c</ul> d) <p></p> </li>")
def test_units_tile_the_source(name, text):
    """Put one after the other they are the text again, and each body starts after its whitespace."""
    units = SPLITS[name](text)
    assert "".join(text[unit.start : unit.end] for unit in units) == text
    assert all(text[unit.start : unit.body].strip() == "" for unit in units)
    assert all(0 <= unit.scope[0] <= unit.scope[1] <= len(units) for unit in units)


class TestPhrases:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("the old river bank road bridge", ["the", "old river bank road", "bridge"]),
            ("it was not allowed to", ["it was", "not allowed", "to"]),
            ("we don't accept cash", ["we", "don't accept cash"]),
            ("a range of 24–10 at 7,000,000 km2", ["a", "range", "of", "24–10", "at", "7,000,000 km2"]),
            ("on 2024-05-01 or May 3, 2021", ["on", "2024-05-01", "or", "May 3, 2021"]),
            ("open https://a.b/c?d=e. Then", ["open https://a.b/c?d=e", ".", "Then"]),
            ("run foo_bar(x) in /etc/hosts/x", ["run foo_bar", "(", "x", ")", "in", "/etc/hosts/x"]),
            ("old Bank of New England fell", ["old Bank of New England", "fell"]),
            ("saw Robert E. Howard there", ["saw Robert E. Howard", "there"]),
            ("by J.R.R. Tolkien", ["by", "J.R.R. Tolkien"]),
            ("Plan B. The rest", ["Plan B.", "The", "rest"]),
            ('films "Now and Then" are', ['films "Now and Then"', "are"]),
            ('a "red one" and "We will not"', ["a", '"red one"', "and", '"We will', 'not"']),
            ("one\ntwo", ["one", "two"]),
            ("東京は大きい都市です。", ["東京", "は", "大", "きい", "都市", "です", "。"]),
            ("हिन्दी भाषा", ["हिन्दी भाषा"]),
            ("hi 👩‍👩‍👧 there", ["hi", "👩‍👩‍👧 there"]),
        ],
    )
    def test_break_where_a_reader_would(self, text, expected):
        """Runs of content or stop words; numbers, dates, links and negations whole."""
        assert cut(phrases, text) == expected

    def test_a_bracket_frames_what_is_inside(self):
        """It stays as long as anything inside stays."""
        units = phrases("Paris (the capital) shines.")
        left, right = (unit for unit in units if unit.kind == "frame" and unit.scope != (0, len(units) - 1))
        assert left.scope == right.scope == (2, 4)


class TestSentences:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("One is. Two was! Three?", ["One is.", "Two was!", "Three?"]),
            ("Dr. Who met Mr. Smith. Then left.", ["Dr. Who met Mr. Smith.", "Then left."]),
            ("U.S. law holds. Yes.", ["U.S. law holds.", "Yes."]),
            ('He said "no." Then left.', ['He said "no."', "Then left."]),
            ("一。二！三", ["一。", "二！", "三"]),
            ("a; b\nc", ["a;", "b", "c"]),
        ],
    )
    def test_end_at_stops_and_newlines(self, text, expected):
        """Abbreviations do not end one."""
        assert cut(sentences, text) == expected

    def test_an_endless_sentence_is_cut_at_a_clause(self):
        """Nothing is too long to be judged."""
        text = ", ".join(f"w{i} x{i}" for i in range(200)) + "."
        assert len(sentences(text)) > 2


def test_blocks_are_lines():
    """A line of a log stays or goes as one."""
    assert cut(blocks, "a. b\n\n- c (d)\n") == ["a. b", "- c (d)", ""]
