from __future__ import annotations

import io
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.errors import InvalidInput
from ctxmem.retrieval.chunk import SIZE, chunked
from ctxmem.retrieval.parse import KINDS, LARGEST, kind_of, parse

MARKDOWN = """# Handbook

Welcome.

## Keys

Press reset twice.

- one
- two

```python
x = 1
```

## Other | tools

| a | b |
|---|---|
| 1 | 2 |
"""

HTML = """<html><head><title>A page</title><style>p {}</style></head><body><h1>Top</h1><p>First <b>bold</b>.</p>
<script>evil()</script><!-- secret --><h2>Part</h2><ul><li>one</li><li>two &amp; three</li></ul>
<table><tr><td>1</td><td>2</td></tr></table></body></html>"""

PYTHON = '''"""Module."""

import os

# About the answer.
def answer() -> int:
    return 42


class Größe:
    """Sizes."""

    def first(self):
        return "🐈" * {many}

    def second(self):
        return {filler}
'''.replace("{many}", "3").replace("{filler}", "[" + "1, " * 600 + "]")


def spans(text: str, kind: str, name: str = "") -> list[tuple[str, str]]:
    parsed = parse(text, kind=kind, name=name)
    return [(parsed.text[block.start : block.end], block.lead) for block in parsed.blocks]


class TestParse:
    def test_text_is_cut_at_blank_lines(self) -> None:
        assert spans("One\nline.\n\n \n  Two.  \n", "text") == [("One\nline.", ""), ("Two.", "")]

    def test_markdown_blocks_stand_under_their_headings(self) -> None:
        found = spans(MARKDOWN, "markdown")
        assert found[0] == ("Welcome.", "Handbook")
        assert ("Press reset twice.", "Handbook > Keys") in found
        assert found[-1][1] == "Handbook > Other | tools"
        assert found[-1][0].startswith("| a | b |")
        assert parse(MARKDOWN, kind="markdown").title == "Handbook"

    @pytest.mark.parametrize("end", ["\r\n", "\r", "\x0b", "\u2028"])
    def test_odd_line_ends_leave_offsets_true(self, end: str) -> None:
        found = spans(f"# One{end}\n\nFirst{end}\n\n# Two\n\nSecond\n", "markdown")
        assert [text.strip() for text, _ in found] == ["First", "Second"]
        assert spans('{"a": "x\u2028y"}\n{"b": 2}', "json")[1] == ('{"b": 2}', "[1]")

    def test_html_gives_what_a_reader_sees(self) -> None:
        parsed = parse(HTML, name="page.html")
        assert parsed.title == "A page"
        assert "evil" not in parsed.text and "secret" not in parsed.text
        found = spans(HTML, "html")
        assert ("First bold.", "Top") in found
        assert ("two & three", "Top > Part") in found
        assert ("1 2", "Top > Part") in found

    def test_html_nested_without_end_is_read(self) -> None:
        assert "deep" in parse("<div>" * 5000 + "deep", kind="html").text

    def test_json_elements_have_their_paths(self) -> None:
        assert spans('{"a": [1, 2], "b": {"c": "}"}}', "json") == [('"a": [1, 2]', "a"), ('"b": {"c": "}"}', "b")]
        assert spans('[{"x": 1},\n 2]', "json") == [('{"x": 1}', "[0]"), ("2", "[1]")]
        assert spans('{"x": 1}\n{"x": 2}\n', "json") == [('{"x": 1}', "[0]"), ('{"x": 2}', "[1]")]
        assert spans("[]", "json") == [("[]", "")]

    @pytest.mark.parametrize("text", ["{", "[1,", "{'a': 1}", "nothing", '{"a": 1} {"b"', "[" * 100_000])
    def test_what_is_no_json_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidInput, match="not JSON"):
            parse(text, kind="json")

    def test_code_is_cut_at_definitions(self) -> None:
        found = spans(PYTHON, "code", "size.py")
        assert ("# About the answer.\ndef answer() -> int:\n    return 42", "size.py") in found
        lead = {text.split("(")[0]: lead for text, lead in found}
        assert lead["def first"] == "size.py > Größe"
        assert lead["def second"] == "size.py > Größe"

    @pytest.mark.parametrize(
        ("name", "code"),
        [
            ("a.js", "function f() { return 1 }\nclass A { m() {} }"),
            ("a.ts", "interface A { x: number }\nexport const f = () => 1"),
            ("a.go", "package a\n\nfunc F() int { return 1 }"),
            ("a.rs", "fn f() -> i32 { 1 }\nstruct A;"),
            ("a.java", "class A { int f() { return 1; } }"),
            ("a.c", "int f(void) { return 1; }"),
            ("a.py", "def broken(:\n  ((("),
            ("a.zig", "fn f() void {}"),
        ],
    )
    def test_languages_are_known_and_broken_code_is_read(self, name: str, code: str) -> None:
        parsed = parse(code, kind="code", name=name)
        assert parsed.blocks
        assert parsed.text == code

    def test_chat_turns_carry_speaker_date_and_the_turn_before(self) -> None:
        turns = [
            {"speaker": "Ada", "text": "Hi!", "date": "8 May 2023"},
            {"role": "user", "content": "Where is it?", "date": "8 May 2023"},
        ]
        expected = [("Ada: Hi!", "[8 May 2023]"), ("user: Where is it?", "[8 May 2023] Ada: Hi!")]
        assert spans(json.dumps(turns), "chat") == expected
        assert spans("\n".join(map(json.dumps, turns)), "chat") == expected
        with pytest.raises(InvalidInput, match="turn 1 has no text"):
            parse('[{"text": "a"}, {"text": 3}]', kind="chat")

    def test_pdf_pages_are_read(self) -> None:
        parsed = parse(pdf("Reset the key by pressing twice."), name="manual.pdf")
        assert parsed.kind == "pdf"
        assert "Reset the key" in parsed.text
        assert parsed.blocks[0].lead == "page 1"


class TestBadInput:
    @pytest.mark.parametrize("data", [b"%PDF-1.7 broken", b"%PDF-1.4\n" + bytes(range(256)) * 20])
    def test_broken_pdfs_are_refused(self, data: bytes) -> None:
        with pytest.raises(InvalidInput):
            parse(data, name="manual.pdf")

    @pytest.mark.parametrize("data", [b"\x7fELF\x00\x01\x02", b"\xff\xd8\xff\xe0JFIF", b"plain but \x00"])
    def test_a_binary_named_text_is_refused(self, data: bytes) -> None:
        with pytest.raises(InvalidInput, match=r"notes\.txt is not text"):
            parse(data, name="notes.txt")

    def test_a_file_that_is_too_large_is_refused_before_it_is_read(self) -> None:
        with pytest.raises(InvalidInput, match="more than"):
            parse(bytes(LARGEST + 1), name="huge.txt")

    def test_encodings(self) -> None:
        assert parse("Grüße".encode("utf-16"), name="a.txt").text == "Grüße"
        assert parse("\ufeffGrüße".encode(), name="a.txt").text == "Grüße"
        assert parse("lone \ud800 surrogate").text == "lone \ufffd\ufffd\ufffd surrogate"

    def test_kinds(self) -> None:
        assert kind_of("a/B.MD") == "markdown"
        assert kind_of("x", b"%PDF-1.7") == "pdf"
        assert kind_of("noname") == "text"
        with pytest.raises(InvalidInput, match="unknown kind"):
            parse("x", kind="docx")


class TestChunks:
    @given(st.text(max_size=4000), st.sampled_from([kind for kind in KINDS if kind in ("text", "markdown", "html")]))
    def test_chunks_are_spans_in_order_and_lose_no_word(self, text: str, kind: str) -> None:
        parsed = parse(text, kind=kind)
        chunks = chunked("d", parsed, size=200)
        assert all(parsed.text[c.start : c.end] == c.text for c in chunks)
        assert all(one.end <= other.start for one, other in pairwise(chunks))
        assert all(len(c.text) <= 200 and c.text.strip() for c in chunks)
        assert len({c.id for c in chunks}) == len(chunks)
        said = "".join("".join(parsed.text[b.start : b.end] for b in parsed.blocks).split())
        assert "".join("".join(c.text for c in chunks).split()) == said

    def test_small_neighbours_are_joined_and_long_ones_cut_at_sentences(self) -> None:
        text = "One. \n\nTwo.\n\n" + "This is a sentence of some words. " * 100
        chunks = chunked("d", parse(text))
        assert chunks[0].text.startswith("One. \n\nTwo.")
        assert all(chunk.text.endswith((".", "Two.")) for chunk in chunks)
        assert all(SIZE // 3 < len(chunk.text) <= SIZE for chunk in chunks[1:-1])

    def test_a_change_leaves_the_other_chunks_ids_alone(self) -> None:
        paragraphs = [f"Paragraph {n} says something about {n * 7}. " * 15 for n in range(6)]
        before = chunked("d", parse("\n\n".join(paragraphs)))
        after = chunked("d", parse("\n\n".join(["New. " * 150, *paragraphs])))
        assert {c.id for c in before} <= {c.id for c in after}
        assert chunked("other", parse("\n\n".join(paragraphs)))[0].id != before[0].id

    def test_what_a_document_says_twice_has_two_chunks(self) -> None:
        text = "\n\n".join(["Same words here. " * 50] * 2)
        assert len({c.id for c in chunked("d", parse(text))}) == 2

    def test_a_document_without_words_has_no_chunks(self) -> None:
        assert chunked("d", parse(" \n\t\n")) == []


def pdf(text: str) -> bytes:
    """A PDF of one page with one line."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    page = writer.add_blank_page(612, 792)
    names = {"Type": "Font", "Subtype": "Type1", "BaseFont": "Helvetica"}
    font = DictionaryObject({NameObject(f"/{key}"): NameObject(f"/{value}") for key, value in names.items()})
    fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    stream = DecodedStreamObject()
    stream.set_data(f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode())
    page[NameObject("/Contents")] = writer._add_object(stream)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()
