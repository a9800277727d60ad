"""Text that may be sent, token by token."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ctxmem.lm.stream import Detokenizer, StopStrings
from tests.unit.lm.conftest import byte_tokenizer

TOKENIZER = byte_tokenizer()


class TestDetokenizer:
    @given(st.text())
    def test_the_pieces_are_the_text(self, text: str) -> None:
        """However its characters fall into tokens, a text comes out whole."""
        (encoding,) = TOKENIZER.encode([text])
        words = Detokenizer(TOKENIZER.decode)
        pieces = [words.push(id) for id in encoding.ids]
        assert "".join(pieces) + words.finish() == TOKENIZER.decode(encoding.ids)

    @given(st.lists(st.integers(0, 255)))
    def test_bytes_that_are_no_text_come_out_as_the_tokenizer_says(self, ids: list[int]) -> None:
        """A model may say anything."""
        words = Detokenizer(TOKENIZER.decode)
        assert "".join(map(words.push, ids)) + words.finish() == TOKENIZER.decode(ids)

    def test_half_a_character_waits_for_the_other(self) -> None:
        """A client never sees a broken character that the next token would mend."""
        words = Detokenizer(TOKENIZER.decode)
        assert [words.push(id) for id in TOKENIZER.encode(["a🎉"])[0].ids] == ["a", "", "", "", "🎉"]


class TestStopStrings:
    def test_the_worked_example(self) -> None:
        """What may become a stop string is held back, and let go when it does not."""
        stops = StopStrings(["END"])
        assert [stops.push(text) for text in ("a E", "NX", "yEND z")] == ["a ", "ENX", "y"]
        assert stops.hit
        assert stops.finish() == ""

    @given(st.text("abc"), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3), st.data())
    def test_the_text_before_the_first_stop_string(self, text: str, stop: list[str], data: st.DataObject) -> None:
        """The cut does not depend on how the text was torn into pieces."""
        stops, sent = StopStrings(stop), ""
        for piece in _torn(text, data):
            sent += stops.push(piece)
        sent += stops.finish()
        assert stops.hit == any(each in text for each in stop)
        expected = min((text.find(each) for each in stop if each in text), default=len(text))
        assert len(sent) <= len(text)
        assert sent == text[: len(sent)]
        assert not any(each in sent for each in stop)
        assert sent == text[:expected] or stops.hit


def _torn(text: str, data: st.DataObject) -> list[str]:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]
