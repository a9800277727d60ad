"""Scopes over HTTP: the wire, what the upstream sees, bad input, tenants, a gateway that is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.client import Client
from bench.crash import back, kill
from bench.servers import scripted_upstream
from bench.stack import stack
from bench.upstream import MODEL
from tests.service.conftest import Gateway, talk
from tests.service.upstream import Upstream

LONG = "Nothing of note happened in this part of the log, line after line. " * 30


def scope(ctx: Gateway, path: str = "", body: Any = None, status: int = 200) -> Any:
    """Ask a route of the scopes of session `s`."""
    answer = ctx.post(f"/v1/sessions/s/scopes{path}", {} if body is None else body)
    assert answer.status == status, answer.body
    return answer.json


def chat(ctx: Gateway, text: str, **headers: str) -> None:
    """One turn of a client that sends what is new."""
    answer = ctx.chat(talk(text), **{"x_ctxmem_session": "s", **headers})
    assert answer.status == 200, answer.body


def sent(upstream: Upstream) -> list[str]:
    """Texts of the request that the upstream saw last."""
    return [message["content"] for message in upstream.last.json["messages"]]


def test_a_scope_folds_for_the_next_request(ctx: Gateway, upstream: Upstream) -> None:
    """Its task and answer stand where it began; the receipt calls its events folded; it can be looked into."""
    chat(ctx, "Fix it.")
    opened = scope(ctx, body={"task": "find the bug"}, status=201)
    name = opened["id"]
    assert (opened["session_id"], opened["open"]) == ("s", [name])
    body = {"messages": [{"role": "assistant", "content": LONG}]}
    logged = ctx.post("/v1/sessions/s/events", body).json["event_ids"]
    assert ctx.get("/v1/sessions/s/scopes").json == {"scopes": [{"id": name, "task": "find the bug"}]}
    item = "it_" + logged[0].removeprefix("ev_")
    done = scope(ctx, f"/{name}/return", {"answer": "line 7 of parse.py", "refs": [item]})
    assert (done["open"], done["unverified"]) == ([], ["7"])
    answer = ctx.chat(talk("And now?"), x_ctxmem_session="s")
    texts = sent(upstream)
    assert texts[0] == "Fix it."
    assert texts[-2:] == [
        f"[subtask {name}] find the bug\n[result of {name}] line 7 of parse.py\n[see {item}]",
        "And now?",
    ]
    assert "subtask was folded" in answer.headers["x-ctxmem-action"]
    receipt = ctx.get(f"/v1/requests/{answer.headers['x-ctxmem-request-id']}").json
    assert [one["decision"] for one in receipt["items"]].count("folded") == 3
    found = scope(ctx, "/recall", {"query": name})["results"]
    assert [(hit["id"], hit["text"]) for hit in found] == [(item, LONG)]
    assert scope(ctx, "/recall", {"query": "nothing of note in the log", "k": 1})["results"][0]["text"] == LONG
    scope(ctx, "/recall", {"query": "x", "k": 0}, status=400)
    (event,) = scope(ctx, f"/{name}/expand")["events"]
    assert event["message"] == body["messages"][0]


def test_an_isolated_scope_is_a_session_of_its_own(ctx: Gateway, upstream: Upstream) -> None:
    chat(ctx, "Fix it.")
    opened = scope(ctx, body={"task": "count", "visibility": "isolated"}, status=201)
    chat(ctx, "Begin.", x_ctxmem_session=opened["session_id"])
    assert sent(upstream) == ["[task] count", "Begin."]
    scope(ctx, f"/{opened['id']}/return", {"answer": "nine"})
    chat(ctx, "And?")
    assert sent(upstream)[-2] == f"[subtask {opened['id']}] count\n[result of {opened['id']}] nine"
    assert ctx.ask("DELETE", "/v1/sessions/s").status == 200
    assert ctx.get(f"/v1/sessions/{opened['session_id']}").status == 404


def test_tails_and_aborts(ctx: Gateway, upstream: Upstream) -> None:
    chat(ctx, "Fix it.")
    name = scope(ctx, body={"task": "1 to 3"}, status=201)["id"]
    assert scope(ctx, f"/{name}/tail", {"task": "2 to 3"})["open"] == [name]
    chat(ctx, "Go on.")
    assert f"[subtask {name}] 2 to 3" in sent(upstream)
    assert scope(ctx, f"/{name}/abort", {"reason": "the disk is full"})["open"] == []
    chat(ctx, "And?")
    assert f"[subtask {name}] 2 to 3\n[aborted {name}] the disk is full" in sent(upstream)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("", {}, 400),
        ("", {"task": ""}, 400),
        ("", {"task": "x" * 3000}, 400),
        ("", {"task": 7}, 400),
        ("", {"task": "x", "visibility": "secret"}, 400),
        ("", {"task": "x", "surprise": 1}, 400),
        ("", {"task": "x", "visibility": "isolated", "refs": ["it_" + "0" * 32]}, 404),
        ("/NAME/return", {}, 400),
        ("/NAME/return", {"answer": " "}, 400),
        ("/NAME/return", {"answer": "x" * 100_000}, 400),
        ("/NAME/return", {"answer": "x", "refs": ["nothing"]}, 404),
        ("/NAME/abort", {"reason": ""}, 400),
        ("/NAME/tail", {"task": ""}, 400),
        ("/f0/return", {"answer": "x"}, 404),
        ("/f999/expand", {}, 404),
    ],
)
def test_what_makes_no_sense_is_refused(ctx: Gateway, path: str, body: Any, status: int) -> None:
    """By name, and nothing is written."""
    chat(ctx, "Fix it.")
    name = scope(ctx, body={"task": "look"}, status=201)["id"]
    before = ctx.get("/v1/sessions/s").json["revision"]
    scope(ctx, path.replace("NAME", name), body, status)
    assert ctx.get("/v1/sessions/s").json["revision"] == before


def test_a_return_waits_for_the_answer_to_a_call(ctx: Gateway, upstream: Upstream) -> None:
    """409 until it is there; a session that nobody spoke in has no scopes."""
    scope(ctx, body={"task": "look"}, status=404)
    chat(ctx, "Fix it.")
    name = scope(ctx, body={"task": "look"}, status=201)["id"]
    call = {"id": "c", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
    ctx.post("/v1/sessions/s/events", {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]})
    refused = scope(ctx, f"/{name}/return", {"answer": "x"}, 409)
    assert "unanswered tool calls: c" in refused["error"]["message"]
    ctx.post("/v1/sessions/s/events", {"messages": [{"role": "tool", "tool_call_id": "c", "content": "a.py"}]})
    scope(ctx, f"/{name}/return", {"answer": "a.py"})
    scope(ctx, f"/{name}/return", {"answer": "b.py"}, 409)


def test_another_tenant_has_none_of_it(ctx: Gateway) -> None:
    chat(ctx, "Fix it.")
    name = scope(ctx, body={"task": "look"}, status=201)["id"]
    other = Gateway(ctx.port, ctx.app)
    scope(other, body={"task": "mine"}, status=404)
    for path, body in (
        ("return", {"answer": "x"}),
        ("tail", {"task": "x"}),
        ("abort", {"reason": "x"}),
        ("expand", {}),
    ):
        scope(other, f"/{name}/{path}", body, 404)
    assert other.get("/v1/sessions/s/scopes").status == 404


def test_marks_outlive_a_killed_gateway(tmp_path: Path) -> None:
    """`kill -9` after each acknowledged step: the next one finds what was done, and the answer is sent at last."""
    with scripted_upstream(tmp_path) as upstream:
        service = stack(tmp_path, [upstream], model="")
        with service.server:
            client = Client(service.root, service.headers, timeout_s=30.0)

            def ask(path: str, body: Any) -> Any:
                answer = client.post(f"/v1/{path}", body)
                assert answer.status in (200, 201), answer.body
                return answer.json()

            def die() -> None:
                assert kill(service, "gateway")
                assert back(service, "gateway")

            ask("context", {"model": MODEL, "session_id": "s", "messages": talk("Fix it.")["messages"]})
            names: list[str] = []
            for task in ("outer", "inner"):
                names.append(ask("sessions/s/scopes", {"task": task})["id"])
                ask("sessions/s/events", {"messages": [{"role": "assistant", "content": LONG}]})
                die()
            for name in reversed(names):
                ask(f"sessions/s/scopes/{name}/return", {"answer": f"done with {name}"})
                die()
            body = {"model": MODEL, "session_id": "s", "messages": talk("And?")["messages"]}
            told = [message["content"] for message in ask("context", body)["messages"]]
            assert told[1:] == [f"[subtask {names[0]}] outer\n[result of {names[0]}] done with {names[0]}", "And?"]
