"""Anthropic Messages and OpenAI Responses in long sessions: pairs whole, signed blocks untouched, answers known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.service.conftest import Gateway
from tests.service.upstream import Cut, Received, Reply, Upstream, streamed, whole
from tests.service.wires import (
    ANSWER,
    CALL,
    DELTAS,
    FUNCTION,
    HELLO,
    REASONING,
    TEXT,
    THINKING,
    claude,
    gpt,
    response,
    said,
)


def strict_messages(request: Received) -> Reply:
    """What Anthropic refuses: calls without their results in the next message, and results without a call."""
    waiting: set[str] = set()
    for i, message in enumerate(request.json["messages"]):
        blocks = message["content"] if isinstance(message["content"], list) else []
        results = {b["tool_use_id"] for b in blocks if b["type"] == "tool_result"}
        wrong = results != waiting or (i == 0 and message["role"] != "user")
        if wrong:
            error = {"type": "error", "error": {"type": "invalid_request_error", "message": f"messages[{i}]"}}
            return whole(error, 400)
        waiting = {b["id"] for b in blocks if b["type"] == "tool_use"}
    return whole(said(TEXT)) if not waiting else whole({}, 400)


def loop(turns: int) -> list[dict[str, Any]]:
    """An agent's run: thinking, a call, a long result, again and again."""
    history: list[dict[str, Any]] = [{"role": "user", "content": "Find the fault in the log."}]
    for i in range(turns):
        call = {"type": "tool_use", "id": f"toolu_{i}", "name": "search", "input": {"page": i}}
        lines = " ".join(f"Line {i} of the report says that part {k} was seen and seemed fine." for k in range(30))
        result = {"type": "tool_result", "tool_use_id": f"toolu_{i}", "content": lines}
        thought = {"type": "thinking", "thinking": f"Page {i} next.", "signature": f"c2ln{i}"}
        history += [{"role": "assistant", "content": [thought, call]}, {"role": "user", "content": [result]}]
    return history


def test_a_long_tool_loop_keeps_its_pairs_and_its_signatures(ctx: Gateway, upstream: Upstream) -> None:
    """Every request of the loop is one the provider takes, in budget, its signed blocks byte for byte."""
    upstream.answer = strict_messages
    history = loop(12)
    originals = {json.dumps(m, ensure_ascii=False, separators=(",", ":")) for m in history if m["role"] == "assistant"}
    with claude(ctx.url, ctx.key) as client:
        for turns in range(1, 13):
            raw = client.messages.with_raw_response.create(
                model="m",
                max_tokens=64,
                system="Be brief.",
                messages=history[: 1 + 2 * turns],
                extra_headers={"x-ctxmem-budget": "1500", "x-ctxmem-session": "loop"},
            )
            before, after = map(int, raw.headers["x-ctxmem-tokens"].split(";"))
            assert after <= min(before, 1500)
            sent = upstream.last.json
            assert sent["system"] == "Be brief."
            kept = [json.dumps(m, ensure_ascii=False, separators=(",", ":")) for m in sent["messages"]]
            assert {text for text in kept if text.startswith('{"role":"assistant"')} <= originals
    assert len(upstream.last.json["messages"]) < len(history)


def test_reasoning_and_its_call_live_or_die_as_one(ctx: Gateway, upstream: Upstream) -> None:
    """Of a long run of items whole exchanges leave; nothing encrypted is left without what it led to."""
    upstream.answer = lambda request: whole(response(ANSWER))
    items: list[dict[str, Any]] = [{"role": "user", "content": "Find the fault."}]
    for i in range(12):
        text = " ".join(f"Row {k} of page {i} is in order." for k in range(40))
        items += [
            {**REASONING, "id": f"rs_{i}", "encrypted_content": f"ZW5j{i}"},
            {**FUNCTION, "id": f"fc_{i}", "call_id": f"c{i}"},
            {**FUNCTION, "id": f"fd_{i}", "call_id": f"d{i}"},
            {"type": "function_call_output", "call_id": f"c{i}", "output": text},
            {"type": "function_call_output", "call_id": f"d{i}", "output": [{"type": "input_text", "text": text}]},
        ]
    with gpt(ctx.url, ctx.key) as client:
        client.responses.create(
            model="m", input=items, instructions="Be brief.", extra_headers={"x-ctxmem-budget": "3000"}
        )
    sent = upstream.last.json["input"]
    assert upstream.last.json["instructions"] == "Be brief."
    assert 1 < len(sent) < len(items)
    assert sent[0] == items[0]
    assert (len(sent) - 1) % 5 == 0
    for i in range(1, len(sent), 5):
        kinds = [item["type"] for item in sent[i : i + 5]]
        assert kinds == ["reasoning", "function_call", "function_call", "function_call_output", "function_call_output"]
        assert sent[i] in items
        assert sent[i + 1] in items


def test_an_answer_of_several_items_is_known_when_it_is_sent_back(ctx: Gateway, upstream: Upstream) -> None:
    """The SDK's usual loop, `input += response.output`, goes on in the same session, and nothing is logged twice."""
    upstream.answer = lambda request: whole(response(REASONING, FUNCTION))
    items: list[Any] = [{"role": "user", "content": "Hi"}]
    with gpt(ctx.url, ctx.key) as client:
        first = client.responses.with_raw_response.create(model="m", input=items)
        items += first.parse().output
        items.append({"type": "function_call_output", "call_id": "c1", "output": "now"})
        second = client.responses.with_raw_response.create(model="m", input=items)
    session = second.headers["x-ctxmem-session"]
    assert session == first.headers["x-ctxmem-session"]
    assert ctx.get(f"/v1/sessions/{session}").json["branches"] == 1
    assert ctx.get(f"/v1/sessions/{session}").json["events"] == 6


@pytest.mark.parametrize("stream", [False, True])
def test_a_message_that_is_sent_back_is_known(ctx: Gateway, upstream: Upstream, stream: bool) -> None:
    """An answer with thinking and a call, streamed or not, is the event that its client sends back."""
    upstream.answer = lambda request: streamed(DELTAS) if stream else whole(said(THINKING, TEXT, CALL, stop="tool_use"))
    history: list[Any] = list(HELLO)
    asked = {"model": "m", "max_tokens": 64, "extra_headers": {"x-ctxmem-session": "again"}}
    with claude(ctx.url, ctx.key) as client:
        for _ in range(3):
            if stream:
                with client.messages.stream(messages=history, **asked) as events:
                    answer = events.get_final_message()
            else:
                answer = client.messages.create(messages=history, **asked)
            history.append({"role": "assistant", "content": answer.content})
            result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "now"}]}
            history.append({"role": "user", "content": [result]})
    head = ctx.get("/v1/sessions/again").json
    assert (head["branches"], head["events"]) == (1, 6)


def test_only_what_is_new_is_enough(ctx: Gateway, upstream: Upstream) -> None:
    """A client that names its session and sends the newest message has the whole history sent, system text included."""
    upstream.answer = lambda request: whole(said(TEXT))
    with claude(ctx.url, ctx.key) as client:
        asked = {"model": "m", "max_tokens": 5, "extra_headers": {"x-ctxmem-session": "delta"}}
        client.messages.create(messages=HELLO, system="Be brief.", **asked)
        client.messages.create(messages=[{"role": "user", "content": "And now?"}], **asked)
    sent = upstream.last.json
    assert sent["system"] == "Be brief."
    assert [m["role"] for m in sent["messages"]] == ["user", "assistant", "user"]


def test_a_cut_message_stream_is_seen_as_broken_and_logged_as_cut(ctx: Gateway, upstream: Upstream) -> None:
    """What came of it is kept, and is known to be no whole answer."""
    upstream.answer = lambda request: streamed(DELTAS[:900], Cut())
    with claude(ctx.url, ctx.key) as client, pytest.raises(Exception, match=r"(?i)peer closed|incomplete|connection"):
        list(
            client.messages.create(
                model="m", max_tokens=5, messages=HELLO, stream=True, extra_headers={"x-ctxmem-session": "cut"}
            )
        )
    event = ctx.get("/v1/sessions/cut/events").json["events"][-1]
    assert (event["role"], event["complete"]) == ("assistant", False)
