"""The tee passes every byte and holds back only the end; the deltas make up one message."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.wires import completion, sse
from tests.service.upstream import chunk, delta, events, words

END = b"data: [DONE]"


def _cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream in pieces, cut at the places."""
    marks = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(marks)]


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
line_ends = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(texts, max_size=6), line_ends, st.lists(st.integers(0, 5000), max_size=12), st.booleans())
def test_the_end_alone_is_held_back(said: list[str], line_end: bytes, places: list[int], comment: bool) -> None:
    """However the stream is cut and whatever its line ends, all that comes before the end mark passes."""
    stream = words(*said).replace(b"\n", line_end)
    stream = (b": ping" + line_end * 2 if comment else b"") + stream
    tee = sse.Tee()
    passed = b"".join(tee.feed(piece) for piece in _cut(stream, places))
    assert tee.done
    assert passed == stream[: stream.index(END)]
    assert passed + tee.held == stream == tee.received


@given(st.lists(texts, max_size=6), st.lists(st.integers(0, 5000), max_size=12))
def test_without_an_end_everything_passes(said: list[str], places: list[int]) -> None:
    """A text that speaks of the end mark is no end mark."""
    stream = events(*(chunk(delta(content=f"data: [DONE]\n\ndata: [DONE]{text}")) for text in said))
    tee = sse.Tee()
    passed = b"".join(tee.feed(piece) for piece in _cut(stream, places))
    assert not tee.done
    assert passed == stream


@pytest.mark.parametrize(
    "stream", [b"data: [DONE]", b"data:[DONE]\r\n\r\n", b"\n\ndata: [DONE]\n", b"\rdata: [DONE]\r\r"]
)
def test_the_end_mark_is_known_in_every_form(stream: bytes) -> None:
    """With and without the blank, after any line end, byte by byte."""
    tee = sse.Tee()
    passed = b"".join(tee.feed(stream[i : i + 1]) for i in range(len(stream)))
    assert tee.done
    assert passed + tee.held == stream
    assert b"d" not in passed


@pytest.mark.parametrize(
    "stream", [b"x data: [DONE]\n\n", b"data: [DONE\n\n", b"data: {}[DONE]\n\n", b"id: [DONE]\n\n"]
)
def test_what_looks_like_the_end_mark_is_none(stream: bytes) -> None:
    """It starts a line."""
    tee = sse.Tee()
    assert b"".join(tee.feed(stream[i : i + 1]) for i in range(len(stream))) == stream
    assert not tee.done


def _said(stream: bytes) -> Any:
    answer = sse.assemble(stream)
    return json.loads(answer.messages[0]) if answer.messages else None


@given(st.lists(texts, min_size=1), line_ends)
def test_texts_are_joined(said: list[str], line_end: bytes) -> None:
    """In order, with nothing between."""
    answer = sse.assemble(words(*said).replace(b"\n", line_end))
    assert json.loads(answer.messages[0]) == {"role": "assistant", "content": "".join(said)}
    assert answer.complete


def test_tool_calls_are_put_together_by_index() -> None:
    """Ids and names come once or again and again; arguments in pieces, interleaved."""
    first = {"index": 1, "id": "b", "type": "function", "function": {"name": "two", "arguments": ""}}
    second = {"index": 0, "id": "a", "type": "function", "function": {"name": "one", "arguments": '{"x'}}
    stream = events(
        chunk(delta(role="assistant", content=None, tool_calls=[first])),
        chunk(delta(tool_calls=[second])),
        chunk(delta(tool_calls=[{"index": 1, "id": "b", "type": "function", "function": {"arguments": "{}"}}])),
        chunk(delta(tool_calls=[{"index": 0, "function": {"arguments": '": 1}'}}])),
        chunk(delta(finish="tool_calls")),
        "[DONE]",
    )
    assert _said(stream) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "one", "arguments": '{"x": 1}'}},
            {"id": "b", "type": "function", "function": {"name": "two", "arguments": "{}"}},
        ],
    }


def test_refusals_reasoning_and_the_old_function_call_are_kept() -> None:
    """Whatever a delta may carry."""
    stream = events(
        chunk(delta(role="assistant", refusal="N", reasoning_content="be")),
        chunk(delta(refusal="o", reasoning_content="cause", function_call={"name": "f", "arguments": "{"})),
        chunk(delta(function_call={"arguments": "}"}, reasoning_details=[{"type": "x", "text": "a"}])),
        chunk(delta(finish="stop")),
    )
    assert _said(stream) == {
        "role": "assistant",
        "content": None,
        "refusal": "No",
        "reasoning_content": "because",
        "function_call": {"name": "f", "arguments": "{}"},
        "reasoning_details": [{"type": "x", "text": "a"}],
    }


def test_the_first_choice_is_the_message() -> None:
    """Others interleave, even in one chunk."""
    stream = events(
        chunk(delta(1, content="B"), delta(0, role="assistant", content="A")),
        chunk(delta(0, content="a", finish="stop")),
        chunk(delta(1, content="b", finish="stop")),
    )
    assert _said(stream)["content"] == "Aa"


@pytest.mark.parametrize(
    "stream",
    [
        events(chunk(delta(content="half"))),
        events(chunk(delta(content="half")), "[DONE]"),
        events(chunk(delta(content="half")), {"error": {"message": "no"}}),
        events(chunk(delta(content="half")), chunk(delta(finish="stop")), {"error": {"message": "no"}}),
        events(chunk(delta(content="half"))) + b'data: {"choices":[{"index":0,"delta":{"content":"lost',
    ],
)
def test_half_an_answer_is_marked(stream: bytes) -> None:
    """No finish reason, or an error: not complete; an event without its empty line never came."""
    answer = sse.assemble(stream)
    assert not answer.complete
    assert json.loads(answer.messages[0])["content"] == "half"


@pytest.mark.parametrize(
    "stream",
    [b"", b": ping\n\n", b"data: [DONE]\n\n", b"data: nonsense\n\n", b"data: 7\n\n", b"data: \xff\n\n", b"data: {}\n\n",
     b'data: {"choices":[]}\n\n', b'data: {"choices":null}\n\n', b'data: {"error":{"message":"no"}}\n\n',
     b'data: {"choices":[7]}\n\n', b'data: {"choices":[{"delta":7}]}\n\n', b'data: {"choices":7}\n\n'],
)  # fmt: skip
def test_no_answer_is_none(stream: bytes) -> None:
    """Noise breaks nothing."""
    answer = sse.assemble(stream)
    assert (answer.messages, answer.complete) == ((), False)


@given(st.binary(max_size=300))
def test_noise_breaks_nothing(noise: bytes) -> None:
    """Neither alone nor as events."""
    sse.assemble(noise)
    sse.assemble(b"data: " + noise + b"\n\n")
    completion.read(noise)


@pytest.mark.parametrize("calls", [7, [7], [[7]], [{"index": "x"}, 7, {"index": "x"}], {"index": 0}])
def test_tool_calls_of_the_wrong_type_break_nothing(calls: Any) -> None:
    """What the upstream means by them is not ours to guess."""
    chunks = [chunk(delta(content=text, tool_calls=calls)) for text in "ab"]
    assert _said(events(*chunks))["content"] == "ab"


def test_usage_is_that_of_the_last_chunk_that_has_one() -> None:
    """Nested numbers under their own names."""
    usage = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": None}, "cost": 0.5}
    stream = events(chunk(delta(content="a"), usage=None), chunk(usage=usage), "[DONE]")
    assert sse.assemble(stream).usage == {"prompt_tokens": 5, "cached_tokens": 4}


def test_several_data_lines_are_one_event() -> None:
    """Joined by line ends, as the format says."""
    assert list(sse.events(b"event: x\ndata: {\ndata: }\nid: 1\n\ndata:b\n\n")) == [b"{\n}", b"b"]


class TestCompletion:
    """`completion.read`, for answers that were not streamed."""

    def test_takes_the_choices_as_they_came(self) -> None:
        """In order, byte for byte."""
        message = b'{"role": "assistant",  "content":"\\u00e9", "x":1e400}'
        body = b'{"choices":[{"index":1,"message":{}},{"index":0,"message":' + message + b"}]}"
        assert completion.read(body).messages == (message, b"{}")

    @pytest.mark.parametrize(
        "body",
        [b"", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[{}]}', b'{"choices":7}', b'{"choices":[{"message":null}]}',
         b"\xff", b'{"choices":[{"message":{"content":"\xff"}}]}', b"[" * 9999],
    )  # fmt: skip
    def test_anything_else_is_no_answer(self, body: bytes) -> None:
        """An upstream may say what it likes."""
        assert completion.read(body).messages == ()
