"""Requests counted with a model's own tokenizer and template."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxmem import chat
from ctxmem.errors import InvalidInput, ModelError
from ctxmem.testing import messages, tool_call, tool_result
from ctxmem.tokens.hf import IMAGE_TOKENS, HFCounter
from ctxmem.types import Message, Part

ALTERNATING = """\
{{ bos_token }}{% for message in messages %}
{%- if message.role not in ['user', 'assistant', 'tool'] or (loop.index0 % 2 == 0) != (message.role == 'user') %}
{{- raise_exception('roles must alternate') }}{% endif %}
[{{ message.role }}] {{ message.content }}</turn>
{% endfor %}"""
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ p.text if p.type == 'text' else '<image>' }}{% endfor %}{% endif %}<|im_end|>"
    "{% endfor %}"
)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

_words = st.text(max_size=20) | st.sampled_from(["<|im_end|>", "a 12 b", "\n", "你好"])
_chats = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), _words), max_size=6)


@pytest.fixture
def under(smollm2_folder, tmp_path):
    """Makes SmolLM2's counter under another chat template."""

    def make(template, **config):
        folder = tmp_path / "model"
        shutil.copytree(smollm2_folder, folder)
        (folder / "chat_template.jinja").write_text(template)
        (folder / "config.json").write_text(json.dumps(config))
        return HFCounter(folder)

    return make


@given(said=_chats)
@settings(max_examples=80)
def test_messages_sum_to_the_request(smollm2, said):
    """But for a constant, which depends only on whether a system message comes first."""
    turns = [chat.build(role, text) for role, text in said]
    rest = smollm2.request(turns) - sum(smollm2.messages(turns))
    opening = smollm2.request([chat.build(said[0][0], "x")]) if said else 0
    expected = opening - smollm2.messages([chat.build(said[0][0], "x")])[0] if said else smollm2.request([])
    assert rest == expected


@given(said=_chats)
@settings(max_examples=60)
def test_counts_are_never_negative_and_grow_with_the_chat(smollm2, said):
    """Every message costs at least what the template writes around it."""
    turns = [chat.build(role, text) for role, text in said]
    costs = smollm2.messages(turns)
    assert all(cost >= 4 for cost in costs)
    assert all(count >= 0 for count in smollm2.texts([text for _, text in said]))
    assert smollm2.request(turns) == len(smollm2.encode_request(turns))


def test_a_second_count_of_a_grown_chat_is_that_of_a_fresh_counter(smollm2, smollm2_folder):
    """What is remembered never shows."""
    turns = [chat.build(("user", "assistant")[i % 2], f"turn {i} " * (i + 1)) for i in range(30)]
    grown = [smollm2.request(turns[:n]) for n in range(1, 31)]
    assert grown[4::5] == [HFCounter(smollm2_folder).request(turns[:n]) for n in range(5, 31, 5)]


def test_the_generation_prompt_can_be_left_out(smollm2):
    """For a request that goes on from what was generated."""
    said = messages("user: hi")
    alone = smollm2.encode_request([])
    assert smollm2.encode_request(said) == smollm2.encode_request(said, prompt=False) + alone != []


def test_what_a_user_types_ends_no_message(smollm2):
    """A look-alike costs its letters, and the model reads no more control tokens than the template writes."""
    ids = smollm2.encode_request(messages("user: a<|im_end|>b"))
    assert ids.count(2) == 2
    assert smollm2.texts(["<|im_end|>"])[0] > 1


def test_a_look_alike_torn_over_two_parts_ends_no_message(under):
    """A template that writes parts side by side would put it together."""
    counter = under(PARTS)
    parts = [{"type": "text", "text": "a<|im_"}, {"type": "text", "text": "end|>b"}]
    said = [chat.parse({"role": "user", "content": parts})]
    assert counter.encode_request(said).count(2) == 1


def test_messages_are_counted_where_roles_must_alternate(under):
    """By what each adds to a short chat that the template accepts."""
    counter = under(ALTERNATING)
    said = messages("user: one", "assistant: two", "user: three")
    costs = counter.messages(said)
    assert counter.request(said) - sum(costs) == len(counter.encode_request([]))
    assert costs[0] == costs[2]


def test_a_chat_the_template_refuses_is_the_callers_error(under):
    """With the template's own words."""
    counter = under(ALTERNATING)
    with pytest.raises(InvalidInput, match="roles must alternate") as caught:
        counter.request(messages("system: x", "user: y"))
    assert caught.value.param == "messages"
    with pytest.raises(InvalidInput, match="no chat with a system message"):
        counter.messages(messages("system: x"))


@pytest.mark.parametrize("tools", [b"{", b"{}", b'"x"', b"[" * 5000])
def test_tools_must_be_a_json_array(smollm2, tools):
    """Malformed, of another type, or too deep."""
    with pytest.raises(InvalidInput, match="tools"):
        smollm2.request(messages("user: hi"), tools)


@pytest.mark.parametrize("depth", [100, 400, 800])
def test_deep_content_is_counted_or_refused(smollm2, under, depth):
    """Never a stack that overflows."""
    deep = b'{"role":"user","content":[{"type":"odd","x":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}]}"
    for counter in (smollm2, under(PARTS)):
        try:
            assert counter.request([chat.parse(deep)]) > 0
        except InvalidInput as error:
            assert "too deep" in str(error)


@pytest.mark.parametrize("text", ["a" * 300_000, " " * 300_000, "1" * 300_000, "<|im_end|>" * 20_000, "你" * 100_000])
def test_long_runs_of_one_thing_are_counted(smollm2, text):
    """Hostile texts take no longer than their length."""
    assert 0 < smollm2.texts([text])[0] <= len(text.encode())


def test_images_cost_an_estimate_where_the_template_takes_them(under, smollm2):
    """SmolLM2's template takes text alone, so what it renders, and the count, is exact without them."""
    said = [chat.parse({"role": "user", "content": [{"type": "text", "text": "hi"}, IMAGE]})]
    plain = messages("user: hi")
    seeing = under(PARTS)
    assert seeing.request(said) > IMAGE_TOKENS
    assert seeing.messages(said)[0] > IMAGE_TOKENS
    assert not seeing.exact_for(said)
    assert seeing.exact_for(plain)
    assert smollm2.request(said) == smollm2.request(plain)
    assert smollm2.exact_for(said)


def test_a_message_without_its_json_counts_as_with_it(smollm2):
    """Messages built in code carry parts only."""
    wires = (tool_call("c1", text="see"), tool_result("c1", "42"))
    with_json = messages("user: hi", *wires)
    without = [Message(m.role, m.parts, name=m.name, tool_call_id=m.tool_call_id) for m in with_json]
    assert smollm2.request(without) == smollm2.request(with_json)
    assert smollm2.messages([Message("user", (Part("text", "hi"),))]) == smollm2.messages(with_json[:1])


def test_lone_surrogates_are_counted(smollm2):
    """JSON lets them in; the model reads replacement characters."""
    said = [chat.parse(b'{"role":"user","content":"a\\ud800"}')]
    assert smollm2.request(said) == smollm2.request([chat.build("user", "a\ufffd")])


def test_many_threads_count_alike(smollm2):
    """One counter serves the whole process."""
    chats = [[chat.build("user", f"thread {i} " * 50), chat.build("assistant", "<|im_end|>" * i)] for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(smollm2.request, chats * 4))
    assert counts == [len(smollm2.encode_request(said)) for said in chats] * 4


def test_equal_names_mean_equal_counts(smollm2, smollm2_folder, under):
    """The name is a fingerprint of tokenizer and template, and the window the smallest one named."""
    other = under(PARTS, max_position_embeddings=4096)
    assert HFCounter(smollm2_folder).name == smollm2.name != other.name
    assert (smollm2.window, other.window) == (8192, 4096)
    assert smollm2.exact


def test_a_model_that_does_not_chat_counts_texts_only(under):
    """An encoder, say."""
    counter = under("")
    assert counter.texts(["hello world"]) == [2]
    with pytest.raises(ModelError, match="no chat template"):
        counter.request(messages("user: hi"))
