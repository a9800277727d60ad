"""OpenAI's models, counted offline."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem import chat
from ctxmem.errors import InvalidInput, ModelError
from ctxmem.testing import messages, tool_call
from ctxmem.tokens import openai
from ctxmem.tokens.openai import FAMILIES, OpenAICounter, family
from ctxmem.types import Message


def _said(role: str, name: str, text: str) -> Message:
    return chat.parse({"role": role, "content": text, **({"name": name} if name else {})})


JARGON = [
    _said(
        "system",
        "",
        "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    ),
    _said("system", "example_user", "New synergies will help drive top-line growth."),
    _said("system", "example_assistant", "Things working well together will increase revenue."),
    _said(
        "system",
        "example_user",
        "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    ),
    _said("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
    _said("user", "", "This late pivot means we don't have time to boil the ocean for the client deliverable."),
]
WEATHER = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "get_current_weather",
                "description": "Get the current weather in a given location",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                        "unit": {
                            "type": "string",
                            "description": "The unit of temperature to return",
                            "enum": ["celsius", "fahrenheit"],
                        },
                    },
                    "required": ["location"],
                },
            },
        }
    ]
).encode()
ASKED = messages(
    "system: You are a helpful assistant that can answer to questions about the weather.",
    "user: What's the weather like in San Francisco?",
)


@pytest.fixture(scope="module")
def gpt4o() -> OpenAICounter:
    return OpenAICounter(family("gpt-4o"))


@pytest.fixture(scope="module")
def gpt4() -> OpenAICounter:
    return OpenAICounter(family("gpt-4"))


def test_the_cookbooks_example_counts_as_the_cookbook_says(gpt4o, gpt4):
    """The figures the API itself gave for these messages, names included."""
    assert (gpt4o.request(JARGON), gpt4.request(JARGON)) == (124, 129)


def test_tools_count_no_less_than_the_api_was_seen_to_count(gpt4o, gpt4):
    """101 and 105 in the cookbook; the JSON of the function is a little more."""
    assert 101 <= gpt4o.request(ASKED, WEATHER) <= 101 * 1.25
    assert 105 <= gpt4.request(ASKED, WEATHER) <= 105 * 1.25


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("ft:gpt-4o-mini-2024-07-18:org:name:id", "gpt-4o-mini"),
        ("ft:gpt-3.5-turbo-0125:org::id", "gpt-3.5-turbo"),
        ("openai/gpt-4.1-nano", "gpt-4.1"),
        ("gpt-5", "gpt-5"),
        ("gpt-5-mini-2025-08-07", "gpt-5"),
        ("gpt-5.6", "gpt-5."),
        ("gpt-5-chat-latest", "gpt-5-chat"),
        ("o3-mini", "o3"),
        ("o4-mini-2025-04-16", "o4"),
        ("o1-preview", "o1-preview"),
        ("gpt-4", "gpt-4"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4-turbo-2024-04-09", "gpt-4-turbo"),
        ("gpt-3.5-turbo-16k", "gpt-3.5-turbo"),
        ("gpt-oss-120b", "gpt-oss"),
    ],
)
def test_names_find_their_family(name, prefix):
    """Plain, dated, fine-tuned and routed."""
    found = family(name)
    assert found is not None
    assert found.prefix == prefix


@pytest.mark.parametrize("name", ["", "gpt", "gpt-4.7", "gpt-40", "o10", "o", "claude-opus-5", "my-gpt-4o", "gpt-50"])
def test_other_names_are_not_openais(name):
    """A new generation may have another encoding: it gets an estimate, not a wrong exact count."""
    assert family(name) is None


def test_families_are_each_listed_once():
    """With an encoding that the package carries, and a window."""
    assert len({one.prefix for one in FAMILIES}) == len(FAMILIES)
    assert {one.encoding for one in FAMILIES} == {"o200k_base", "cl100k_base"}
    assert all(one.window >= 4096 for one in FAMILIES)


@given(said=st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=30)), max_size=5))
def test_messages_sum_to_the_request_but_for_the_primer(gpt4o, said):
    """Whatever is said; no count is negative."""
    turns = [chat.build(role, text) for role, text in said]
    costs = gpt4o.messages(turns)
    assert sum(costs) + 3 == gpt4o.request(turns)
    assert all(cost >= 4 for cost in costs)


def test_control_tokens_are_text(gpt4o):
    """They are taken from nobody who sends a message."""
    assert gpt4o.texts(["<|endoftext|>", "<|im_end|>", "", "a\ud800"])[:3] == [7, 6, 0]


@pytest.mark.parametrize("text", ["a" * 1_000_000, " " * 1_000_000, "\n" * 500_000, "(" * 500_000, "你" * 300_000])
def test_long_runs_of_one_character_are_counted(gpt4o, text):
    """They crash or stall other encoders of the same kind."""
    assert 0 < gpt4o.texts([text])[0] <= len(text.encode())


def test_what_is_not_text_is_counted_at_the_most_and_said_so(gpt4o):
    """Images, tool calls, tools; an image's data is not taken for text, a file's is."""
    url = {"url": "data:image/png;base64," + "A" * 100_000}
    image = chat.parse({"role": "user", "content": [{"type": "image_url", "image_url": url}]})
    file = chat.parse({"role": "user", "content": [{"type": "file", "file": {"file_data": "AbC1" * 1000}}]})
    call = messages(tool_call("c1", arguments='{"place": "Köln"}'))
    assert gpt4o.request([image]) == 3 + 3 + 1 + 3_779
    assert OpenAICounter(family("gpt-4o-mini")).request([image]) > 48_169
    assert gpt4o.request([file]) > 1000
    assert gpt4o.exact
    assert gpt4o.exact_for(ASKED)
    assert not any(gpt4o.exact_for(said) for said in ([image], [file], call))
    assert not gpt4o.exact_for(ASKED, WEATHER)


@pytest.mark.parametrize("tools", [b"{", b"{}", b"[" * 5000])
def test_tools_must_be_a_json_array(gpt4o, tools):
    """Malformed, of another type, or too deep."""
    with pytest.raises(InvalidInput, match="tools"):
        gpt4o.request(ASKED, tools)


@pytest.mark.parametrize(
    "tools", [b"[]", b'["odd"]', b'[{"type":"custom","name":"x"}]', b'[{"function":{"parameters":[]}}]']
)
def test_odd_tools_are_counted_not_refused(gpt4o, tools):
    """The upstream judges them."""
    assert gpt4o.request(ASKED, tools) >= gpt4o.request(ASKED)


def test_a_missing_package_is_named(monkeypatch):
    """With the command that installs it."""
    monkeypatch.setattr(openai, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install bpe-openai"):
        OpenAICounter(FAMILIES[0])


def test_no_socket_is_ever_touched():
    """Not at import, not at the first count, for either encoding."""
    code = (
        "import sys\n"
        "def refuse(event, args):\n"
        "    if event.startswith('socket.'): raise SystemExit(f'{event} {args}')\n"
        "sys.addaudithook(refuse)\n"
        "from ctxmem.tokens.resolve import counter_for\n"
        "for name in ('gpt-4o', 'gpt-4', 'nobody-knows', 'hf:no/such'):\n"
        "    try: print(counter_for(name).texts(['hello world']))\n"
        "    except Exception as error: print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[:4] == ["[2]", "[2]", "[3]", "ModelError"]
