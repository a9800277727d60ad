"""What the data plane does with the manager: sessions, edits, budgets, and going on without it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from service.settings import Upstream as UpstreamSettings
from tests.service.conftest import Answer, Gateway, served, talk, wait_for
from tests.service.upstream import Upstream, completion, torn, whole

TOLD = ("x-ctxmem-request-id", "x-ctxmem-session", "x-ctxmem-action", "x-ctxmem-tokens", "x-ctxmem-overhead-ms")
LONG = " ".join(f"word{i}" for i in range(120))


def _converse(ctx: Gateway, turns: int, **headers: str) -> list[Answer]:
    """A conversation that resends all its history, as OpenAI clients do."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
    answers = []
    for i in range(turns):
        messages.append({"role": "user", "content": f"{i} {LONG}"})
        answers.append(ctx.chat({"model": "m", "messages": messages}, **headers))
        messages.append(answers[-1].json["choices"][0]["message"])
    return answers


def test_every_answer_tells_what_was_done(ctx: Gateway, upstream: Upstream) -> None:
    """Five headers, streamed or not; nothing but the action when we stand aside."""
    for stream in (False, True):
        answer = ctx.chat(talk("hi", stream=stream))
        assert all(answer.headers.get(name) for name in TOLD)
        before, after = answer.headers["x-ctxmem-tokens"].split(";")
        assert int(before) == int(after) > 0
        assert float(answer.headers["x-ctxmem-overhead-ms"]) >= 0
    aside = ctx.chat(talk("hi"), x_ctxmem_mode="off").headers
    assert aside["x-ctxmem-action"] == "bypass;reason=off"
    assert "x-ctxmem-request-id" not in aside


def test_standing_aside_leaves_no_trace(ctx: Gateway, upstream: Upstream) -> None:
    """`off` logs nothing."""
    ctx.chat(talk("hi"), x_ctxmem_mode="off", x_ctxmem_session="quiet")
    assert ctx.get("/v1/sessions").json == {"sessions": []}
    assert ctx.get("/v1/requests").json == {"requests": []}


@pytest.mark.parametrize("picked", ["A", "B"])
def test_every_choice_is_logged_and_may_be_gone_on_from(ctx: Gateway, upstream: Upstream, picked: str) -> None:
    """With n=2 both answers are events, and the history with either of them is the same session."""
    both = completion("A")
    both["choices"].append({"index": 1, "message": {"role": "assistant", "content": "B"}, "finish_reason": "stop"})
    upstream.answer = lambda request: whole(both)
    first = ctx.chat({**talk("hi"), "n": 2})
    session = first.headers["x-ctxmem-session"]
    history = [*talk("hi")["messages"], {"role": "assistant", "content": picked}, {"role": "user", "content": "go on"}]
    again = ctx.chat({"model": "m", "messages": history})
    assert again.headers["x-ctxmem-session"] == session
    logged = ctx.get(f"/v1/sessions/{session}/events").json["events"]
    assert sorted(e["message"]["content"] for e in logged if e["role"] == "assistant")[:3] == ["A", "A", "B"]
    items = ctx.get(f"/v1/requests/{again.headers['x-ctxmem-request-id']}").json["items"]
    assert len(items) == len(history)


def test_a_history_sent_again_is_the_same_session(ctx: Gateway, upstream: Upstream) -> None:
    """The chain of messages names it; each message is logged once."""
    answers = _converse(ctx, 4)
    assert len({answer.headers["x-ctxmem-session"] for answer in answers}) == 1
    session = answers[0].headers["x-ctxmem-session"]
    logged = ctx.get(f"/v1/sessions/{session}/events").json["events"]
    assert [event["role"] for event in logged] == ["system", *["user", "assistant"] * 4]


@pytest.mark.parametrize("way", ["header", "metadata"])
def test_a_client_can_name_its_session(ctx: Gateway, upstream: Upstream, way: str) -> None:
    """And then send only what is new."""
    named: dict[str, Any] = {"x_ctxmem_session": "chat 42/ä"} if way == "header" else {}
    more = {"metadata": {"session_id": "chat 42/ä", "other": "kept"}} if way == "metadata" else {}
    for text in ("first", "second"):
        answer = ctx.chat(talk(text, **more), **named)
    assert answer.headers["x-ctxmem-session"] == "chat 42/%C3%A4"
    assert [message["content"] for message in upstream.last.json["messages"]] == ["first", "Hello there.", "second"]
    assert upstream.last.json.get("metadata") == more.get("metadata")


def test_a_session_id_with_control_characters_is_refused(ctx: Gateway, upstream: Upstream) -> None:
    """Nothing that could break a header or a log line."""
    answer = ctx.chat(talk("hi", metadata={"session_id": "a\r\nx: y"}))
    assert (answer.status, answer.error["param"]) == (400, "session_id")
    assert upstream.received == []


def test_a_long_conversation_stays_under_its_budget(ctx: Gateway, upstream: Upstream) -> None:
    """What is sent fits, other fields keep their bytes, and the newest message is always there."""
    budget = 1200
    answers = _converse(ctx, 12, x_ctxmem_budget=str(budget))
    for answer in answers:
        before, after = map(int, answer.headers["x-ctxmem-tokens"].split(";"))
        assert after <= budget
        assert after <= before
    assert before > budget
    sent = upstream.last.json["messages"]
    assert sent[0] == {"role": "system", "content": "Be brief."}
    assert sent[-1]["content"].startswith("11 ")
    receipt = ctx.get(f"/v1/requests/{answers[-1].headers['x-ctxmem-request-id']}").json
    assert receipt["budget"] == {"limit": budget, "reserve": 0, "tokens": after}
    assert {item["decision"] for item in receipt["items"]} > {"kept"}
    assert len({item["event_id"] for item in receipt["items"]}) == len(receipt["items"]) == 24


def test_edited_requests_keep_every_other_byte(ctx: Gateway, upstream: Upstream) -> None:
    """Only `messages` is another; and of the messages, only those that were edited."""
    said = [{"role": "user" if i % 2 == 0 else "assistant", "content": f"{i} {LONG}"} for i in range(15)]
    raw = [json.dumps(message, indent=1).encode() for message in said]
    head, tail = b'{ "seed": 12345678901234567890123, "messages" :  ', b' ,\n"model":"m","x":1.50 }\n'
    answer = ctx.chat(head + b"[" + b" , ".join(raw) + b"]" + tail, x_ctxmem_budget="1200")
    body = upstream.last.body
    assert answer.status == 200
    assert body.startswith(head)
    assert body.endswith(tail)
    kept = [one for one in raw if one in body]
    assert raw[-1] in kept
    assert len(kept) < len(raw)


def test_tool_exchanges_are_never_torn(ctx: Gateway, upstream: Upstream) -> None:
    """The upstream applies the providers' rules, and has nothing to refuse."""
    said: list[dict[str, Any]] = []
    for i in range(10):
        call = {"id": f"c{i}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        said += [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
        said += [{"role": "tool", "tool_call_id": f"c{i}", "content": LONG}, {"role": "assistant", "content": f"{i}!"}]
    answer = ctx.chat({"model": "m", "messages": [*said, {"role": "user", "content": "so?"}]}, x_ctxmem_budget="900")
    assert answer.status == 200
    sent = upstream.last.json["messages"]
    assert len(sent) < len(said)
    assert torn(sent) is None


def test_observing_builds_and_sends_the_original(ctx: Gateway, upstream: Upstream) -> None:
    """The receipt says what would have been done."""
    said = [{"role": "user" if i % 2 == 0 else "assistant", "content": f"{i} {LONG}"} for i in range(15)]
    answer = ctx.chat({"model": "m", "messages": said}, x_ctxmem_budget="1200", x_ctxmem_mode="observe")
    assert upstream.last.json["messages"] == said
    receipt = ctx.get(f"/v1/requests/{answer.headers['x-ctxmem-request-id']}").json
    assert (receipt["mode"], receipt["budget"]["tokens"] <= 1200) == ("observe", True)


def test_a_retry_is_the_same_request_to_the_log(ctx: Gateway, upstream: Upstream) -> None:
    """An SDK that tries again after a 500 leaves one message, not two."""
    replies = iter([whole({"error": {"message": "no"}}, 500), whole(completion())])
    upstream.answer = lambda request: next(replies)
    with ctx.client().with_options(max_retries=1) as client:
        made = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], extra_headers={"x-ctxmem-session": "again"}
        )
    assert made.choices[0].message.content == "Hello there."
    logged = ctx.get("/v1/sessions/again/events").json["events"]
    assert [event["role"] for event in logged] == ["user", "assistant"]


def test_an_upstream_and_a_model_can_be_named_together(ctx: Gateway, upstream: Upstream) -> None:
    """`up/m` goes to `up` as `m`; every other byte stays."""
    ctx.chat(b'{"messages":[{"role":"user","content":"x"}], "model" : "up/m" }')
    assert upstream.last.body == b'{"messages":[{"role":"user","content":"x"}], "model" : "m" }'


@pytest.fixture
def fragile(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    """A gateway whose database a test may ruin."""
    ups = (UpstreamSettings(name="up", base_url=upstream.url),)
    with served(Settings(data_dir=tmp_path, model="", port=0, upstreams=ups)) as running:
        yield running


@pytest.mark.parametrize("stream", [False, True])
def test_without_a_store_requests_go_on_as_they_came(
    fragile: Gateway, upstream: Upstream, tmp_path: Path, stream: bool
) -> None:
    """The response says so, readiness says so, the metrics say so; our own routes answer 503."""
    assert fragile.chat(talk("before")).headers["x-ctxmem-action"].startswith("pass")
    with sqlite3.connect(tmp_path / "ctxmem.db") as database:
        for table in ("events", "requests", "sessions"):
            database.execute(f"ALTER TABLE {table} RENAME TO {table}_gone")
    database.close()
    answer = fragile.chat(talk("after", stream=stream))
    assert answer.status == 200
    assert b"there." in answer.body
    assert answer.headers["x-ctxmem-action"].startswith("bypass;reason=store")
    assert upstream.last.json["messages"] == talk("after")["messages"]
    assert b'ctxmem_compress_skipped_total{reason="store_unavailable"} 1.0' in fragile.get("/metrics").body
    refused = fragile.get("/v1/sessions")
    assert (refused.status, refused.error["code"], "retry-after" in refused.headers) == (503, "store_unavailable", True)


def test_a_store_that_fails_at_the_answer_does_not_take_it_away(
    fragile: Gateway, upstream: Upstream, tmp_path: Path
) -> None:
    """The client gets what the upstream said; the loss is counted."""

    def ruin(request: Any) -> Any:
        with sqlite3.connect(tmp_path / "ctxmem.db") as database:
            database.execute("ALTER TABLE events RENAME TO events_gone")
        database.close()
        return whole(completion())

    upstream.answer = ruin
    answer = fragile.chat(talk("hi"))
    assert (answer.status, answer.json["choices"][0]["message"]["content"]) == (200, "Hello there.")
    assert b'ctxmem_compress_skipped_total{reason="store_unavailable"} 1.0' in fragile.get("/metrics").body


def test_what_the_manager_did_not_foresee_does_not_stop_a_request(fragile: Gateway, upstream: Upstream) -> None:
    """A bug of ours is logged, counted and gone around."""

    def broken(model: str) -> Any:
        raise ZeroDivisionError(model)

    object.__setattr__(fragile.app.service.manager.engine, "counters", broken)
    answer = fragile.chat(talk("hi"))
    assert (answer.status, answer.headers["x-ctxmem-action"]) == (200, "bypass;reason=internal_error")
    assert fragile.post("/v1/context", talk("hi")).status == 500
    assert fragile.get("/livez").status == 200


KILLED = """
import sys, time
from pathlib import Path
from service.settings import Settings
from service.settings import Upstream as UpstreamSettings
from tests.service.conftest import served, talk
ups = (UpstreamSettings(name="up", base_url=sys.argv[2]),)
with served(Settings(data_dir=Path(sys.argv[1]), model="", port=0, upstreams=ups)) as ctx:
    ctx.key = "k"
    for i in range(1000):
        answer = ctx.chat(talk(f"turn {i}"), x_ctxmem_session="killed")
        print(answer.json["choices"][0]["message"]["content"], flush=True)
"""


def test_what_was_answered_survives_kill_nine(tmp_path: Path, upstream: Upstream) -> None:
    """Every answer a client has seen is in the log of the next process."""
    upstream.answer = lambda request: whole(completion("to " + request.json["messages"][-1]["content"]))
    argv = [sys.executable, "-c", KILLED, str(tmp_path), upstream.url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(5)]
        process.kill()
        seen += process.stdout.read().split("\n")[:-1]
    with served(Settings(data_dir=tmp_path, model="", port=0)) as again:
        again.key = "k"
        logged = again.get("/v1/sessions/killed/events").json["events"]
    said = [event["message"]["content"] for event in logged if event["role"] == "assistant"]
    assert seen[0] == "to turn 0"
    assert [one for one in seen if one and one not in said] == []


def test_usage_is_kept_with_the_request(ctx: Gateway, upstream: Upstream) -> None:
    """The upstream's own numbers, its cache's among them."""
    said = completion()
    said["usage"]["prompt_tokens_details"] = {"cached_tokens": 5}
    upstream.answer = lambda request: whole(said)
    ctx.chat(talk("hi"))
    (request,) = ctx.get("/v1/requests").json["requests"]
    assert request["usage"]["cached_tokens"] == 5
    assert request["status"] == "answered"


def test_an_error_answer_marks_the_request_failed(ctx: Gateway, upstream: Upstream) -> None:
    """And logs no assistant message."""
    upstream.answer = lambda request: whole({"error": {"message": "no"}}, 429)
    ctx.chat(talk("hi"), x_ctxmem_session="failed")
    assert wait_for(lambda: ctx.get("/v1/requests").json["requests"][0]["status"] == "failed")
    assert len(ctx.get("/v1/sessions/failed/events").json["events"]) == 1
