"""Messages to values and back: the bytes that came are the bytes that go."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem import chat
from ctxmem.errors import InvalidInput

texts = st.text(st.characters(exclude_categories=["Cs"]))


def raw(wire) -> bytes:
    return json.dumps(wire, ensure_ascii=False, separators=(",", ":")).encode()


class TestParse:
    def test_bytes_are_kept(self):
        """Spaces, key order, big numbers and escapes stay as the client wrote them."""
        source = b'{ "content":"a\\u00e9", "role" : "user", "n": 12345678901234567890123, "f": 1.0 }'
        assert source == chat.parse(source).raw

    def test_parts_come_in_order(self):
        """Texts, opaque parts, then tool calls."""
        message = chat.parse(
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}],
                "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}],
            }
        )
        assert [part.kind for part in message.parts] == ["text", "opaque", "tool_call"]
        assert message.tool_call_ids == ("c1",)

    def test_a_message_without_content_has_one_empty_text(self):
        """So that every event has a segment."""
        assert [part.text for part in chat.parse({"role": "assistant", "content": None}).parts] == [""]

    def test_the_error_names_the_place(self):
        """`param` points at the message."""
        with pytest.raises(InvalidInput) as caught:
            chat.parse_all([{"role": "user", "content": "x"}, {"role": "user", "content": 1}])
        assert caught.value.param == "messages[1].content"


class TestEdit:
    def test_only_the_text_changes(self):
        """Every other member of the message stays."""
        message = chat.parse(b'{"role":"user","content":"long text","name":"bob","x":{"y":[1,2]}}')
        assert chat.edit(message, ["short"]).raw == b'{"role":"user","content":"short","name":"bob","x":{"y":[1,2]}}'

    def test_parts_are_edited_in_place(self):
        """A text part is replaced, another taken out, an image left alone."""
        parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "b"}]
        message = chat.parse({"role": "user", "content": parts})
        edited = json.loads(chat.edit(message, ["A", message.parts[1].text, None]).raw)
        assert [{"type": "text", "text": "A"}, parts[1]] == edited["content"]

    @given(texts)
    def test_the_same_text_is_no_edit(self, text):
        """The very bytes come back."""
        message = chat.parse({"role": "user", "content": text})
        assert message is chat.edit(message, [text])


class TestIdentity:
    @pytest.mark.parametrize(
        "other",
        [
            {"content": "hi", "role": "user"},
            {"role": "user", "content": "hi", "name": None},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": "hi", "annotations": [], "refusal": None, "audio": {}},
        ],
    )
    def test_forms_of_one_message_are_one(self, other):
        """What SDKs add and drop does not count."""
        assert chat.identity(raw({"role": "user", "content": "hi"})) == chat.identity(raw(other))

    @pytest.mark.parametrize(
        "other",
        [
            {"role": "user", "content": "hi "},
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": "hi", "name": "bob"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "hi"}]},
            {"role": "tool", "content": "hi", "tool_call_id": "c1"},
        ],
    )
    def test_other_messages_are_others(self, other):
        """A difference that a model would see makes another message."""
        assert chat.identity(raw({"role": "user", "content": "hi"})) != chat.identity(raw(other))

    def test_an_answer_may_lose_the_space_around_it(self):
        """Apps trim answers before they send them back; a user's own spaces count."""
        said = {"role": "assistant", "content": "\n hi "}
        assert chat.identity(raw(said)) == chat.identity(raw({**said, "content": "hi"}))


class TestReply:
    @pytest.mark.parametrize(
        "reply",
        [
            "hi",
            {"content": "hi"},
            {"role": "assistant", "content": "hi"},
            {"choices": [{"message": {"role": "assistant", "content": "hi"}}]},
        ],
    )
    def test_texts_messages_and_completions(self, reply):
        """All of them are the assistant's `hi`."""
        assert chat.reply(reply) == {"role": "assistant", "content": "hi"}

    @pytest.mark.parametrize("reply", [None, 3, [], {"choices": [{}]}])
    def test_anything_else_is_refused(self, reply):
        """No reply is made up."""
        with pytest.raises(InvalidInput):
            chat.reply(reply)
