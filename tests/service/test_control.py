"""The control plane by its wire names: sessions, receipts, originals, contexts, models, erasure, health."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.service.conftest import Gateway, talk
from tests.service.upstream import Upstream, completion, whole

RECEIPT = {
    "id", "session_id", "model", "exact", "mode", "policy", "action", "reason", "budget", "parts",
    "stable_prefix_tokens", "items", "timings",
}  # fmt: skip
ITEM = {"event_id", "item_id", "decision", "stage", "reason", "tokens_before", "tokens_after"}
ODD = b'{ "content":"\\u00e9 1.0",  "role":"user", "x":[1.50, 1e400], "name":"n" }'


def _say(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


class TestContext:
    """`POST /v1/context`."""

    def test_builds_and_calls_no_model(self, ctx: Gateway, upstream: Upstream) -> None:
        """The messages to send, and the receipt; the log has them."""
        made = ctx.post("/v1/context", {"model": "m", "messages": _say("hi"), "session_id": "c", "budget": 500}).json
        assert made["messages"] == _say("hi")
        assert set(made["receipt"]) == RECEIPT
        assert made["receipt"]["budget"]["limit"] == 500
        assert set(made["receipt"]["parts"]) == {"system", "tools", "state", "retrieved", "history", "query"}
        (item,) = made["receipt"]["items"]
        assert set(item) == ITEM
        assert item["decision"] == "kept"
        assert upstream.received == []
        assert ctx.get("/v1/sessions/c/events").json["events"][0]["event_id"] == item["event_id"]

    def test_reserve_leaves_room_for_the_answer(self, ctx: Gateway) -> None:
        """It comes off the budget."""
        body = {"model": "m", "messages": _say("hi"), "budget": 500, "reserve": 100}
        assert ctx.post("/v1/context", body).json["receipt"]["budget"]["limit"] == 400

    def test_tools_count(self, ctx: Gateway) -> None:
        """They are a part of the budget."""
        tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
        made = ctx.post("/v1/context", {"model": "m", "messages": _say("hi"), "tools": [tool]}).json
        assert made["receipt"]["parts"]["tools"] > 0

    def test_messages_keep_their_bytes(self, ctx: Gateway) -> None:
        """Numbers, escapes and blanks of an unedited message come back as they went in."""
        answer = ctx.post("/v1/context", b'{"model":"m","messages":[' + ODD + b"]}")
        assert ODD in answer.body


class TestOriginals:
    """`GET /v1/items/{id}/restore`."""

    def test_a_message_comes_back_byte_for_byte(self, ctx: Gateway) -> None:
        """As it was serialised, blanks and all."""
        made = ctx.post("/v1/context", b'{"model":"m","messages":[' + ODD + b"]}").json
        restored = ctx.get(f"/v1/items/{made['receipt']['items'][0]['item_id']}/restore")
        assert restored.body == b'{"message":' + ODD + b"}"

    def test_everything_left_out_can_be_restored(self, ctx: Gateway, upstream: Upstream) -> None:
        """Each item of a receipt, kept or not."""
        long = " ".join(f"word{i}" for i in range(100))
        said = [{"role": ("user", "assistant")[i % 2], "content": f"{i} {long}"} for i in range(21)]
        answer = ctx.chat({"model": "m", "messages": said}, x_ctxmem_budget="900")
        items = ctx.get(f"/v1/requests/{answer.headers['x-ctxmem-request-id']}").json["items"]
        assert any(item["decision"] != "kept" for item in items)
        restored = [ctx.get(f"/v1/items/{item['item_id']}/restore").json["message"] for item in items]
        assert restored == said


class TestReplay:
    """`POST /v1/requests/{id}/replay`."""

    def test_gives_the_bytes_that_were_sent(self, ctx: Gateway, upstream: Upstream) -> None:
        """Identical, and says so."""
        answer = ctx.chat(b'{"model":"m","messages":[' + ODD + b"]}")
        replayed = ctx.post(f"/v1/requests/{answer.headers['x-ctxmem-request-id']}/replay", {})
        assert replayed.json["identical"] is True
        assert ctx.post(f"/v1/requests/{answer.headers['x-ctxmem-request-id']}/replay", b"").json == replayed.json
        assert b'"messages":[' + ODD + b"]" in replayed.body

    def test_shows_what_another_budget_would_have_made(self, ctx: Gateway, upstream: Upstream) -> None:
        """Nothing is written."""
        long = " ".join(f"word{i}" for i in range(100))
        said = [{"role": ("user", "assistant")[i % 2], "content": f"{i} {long}"} for i in range(11)]
        answer = ctx.chat({"model": "m", "messages": said}, x_ctxmem_session="s")
        path = f"/v1/requests/{answer.headers['x-ctxmem-request-id']}/replay"
        replayed = ctx.post(path, {"budget": 900, "policy": "none"}).json
        assert replayed["identical"] is False
        assert len(replayed["messages"]) < len(said)
        assert len(ctx.get("/v1/requests?session_id=s").json["requests"]) == 1


class TestSessions:
    """`/v1/sessions`."""

    def test_events_are_appended_in_order(self, ctx: Gateway) -> None:
        """With a revision to compare, and pages."""
        first = ctx.post("/v1/sessions/s/events", {"messages": _say("a", "b")}).json
        second = ctx.post("/v1/sessions/s/events", {"messages": _say("c"), "expected_revision": first["revision"]}).json
        assert second["revision"] > first["revision"]
        logged = ctx.get("/v1/sessions/s/events").json["events"]
        assert [event["event_id"] for event in logged] == first["event_ids"] + second["event_ids"]
        assert [event["seq"] for event in logged] == [0, 1, 2]
        page = ctx.get("/v1/sessions/s/events?after_seq=0&limit=1").json["events"]
        assert [event["message"]["content"] for event in page] == ["b"]

    def test_a_stale_revision_is_a_conflict(self, ctx: Gateway) -> None:
        """And nothing is logged."""
        first = ctx.post("/v1/sessions/s/events", {"messages": _say("a")}).json
        stale = ctx.post("/v1/sessions/s/events", {"messages": _say("b"), "expected_revision": first["revision"] + 7})
        assert (stale.status, stale.error["code"]) == (409, "conflict")
        assert len(ctx.get("/v1/sessions/s/events").json["events"]) == 1

    def test_an_idempotency_key_makes_one_append_of_two(self, ctx: Gateway) -> None:
        """The same answer; another content under the same key is a conflict."""
        body = {"messages": _say("once")}
        answers = [ctx.post("/v1/sessions/s/events", body, idempotency_key="k1") for _ in range(2)]
        assert answers[0].json == answers[1].json
        assert len(ctx.get("/v1/sessions/s/events").json["events"]) == 1
        other = ctx.post("/v1/sessions/s/events", {"messages": _say("twice")}, idempotency_key="k1")
        assert other.status == 409

    def test_a_session_can_be_opened_before_its_first_message(self, ctx: Gateway, upstream: Upstream) -> None:
        """Under a name or a fresh one; a taken name is a conflict."""
        named = ctx.post("/v1/sessions", {"session_id": "mine", "user_id": "ann"})
        fresh = ctx.post("/v1/sessions", {})
        assert (named.status, named.json["id"], named.json["user_id"]) == (201, "mine", "ann")
        assert fresh.json["id"].startswith("s_")
        assert ctx.post("/v1/sessions", {"session_id": "mine"}).status == 409
        assert ctx.chat(talk("hi"), x_ctxmem_session="mine").status == 200
        assert ctx.post("/v1/sessions/" + fresh.json["id"] + "/events", {"messages": _say("a")}).status == 200
        assert ctx.get("/v1/sessions/mine").json["events"] == 2

    def test_lists_by_user_and_page(self, ctx: Gateway) -> None:
        """Ids in order; `after` starts the next page."""
        for name, user in (("a", "ann"), ("b", "bob"), ("c", "ann")):
            ctx.post(f"/v1/sessions/{name}/events", {"messages": _say("x"), "user_id": user})
        assert [one["id"] for one in ctx.get("/v1/sessions?user_id=ann").json["sessions"]] == ["a", "c"]
        assert [one["id"] for one in ctx.get("/v1/sessions?after=a&limit=1").json["sessions"]] == ["b"]

    def test_exports_the_whole_log_both_ways(self, ctx: Gateway) -> None:
        """Lines of JSON, or one object; messages byte for byte."""
        ctx.post("/v1/sessions/s/events", b'{"messages":[' + ODD + b"]}")
        ctx.post("/v1/sessions/s/events", {"messages": _say(*map(str, range(20)))})
        lines = ctx.get("/v1/sessions/s/export")
        assert lines.headers["content-type"] == "application/x-ndjson"
        assert ODD in lines.body
        parsed = [json.loads(line) for line in lines.body.splitlines()]
        whole_log = ctx.get("/v1/sessions/s/export?format=json").json
        assert (len(parsed), whole_log["events"]) == (21, parsed)

    def test_erasing_leaves_nothing(self, ctx: Gateway, upstream: Upstream) -> None:
        """Not the session, not its requests, not its originals; and says what went."""
        answer = ctx.chat(talk("secret"), x_ctxmem_session="s")
        request = answer.headers["x-ctxmem-request-id"]
        item = ctx.get(f"/v1/requests/{request}").json["items"][0]["item_id"]
        receipt = ctx.ask("DELETE", "/v1/sessions/s").json
        assert receipt["id"].startswith("del_")
        assert receipt["scope"] == "session:s"
        assert receipt["counts"]["events"] == 2
        for path in ("/v1/sessions/s", f"/v1/requests/{request}", f"/v1/items/{item}/restore"):
            assert ctx.get(path).status == 404
        assert ctx.ask("DELETE", "/v1/sessions/s").status == 404

    def test_an_original_goes_with_the_session_it_names(self, ctx: Gateway, upstream: Upstream) -> None:
        """Of a text that was compressed once; a session that is not there is 404."""
        ctx.chat(talk("hello"), x_ctxmem_session="s", x_ctxmem_user="ann")
        asked = {"text": "The harbour opens at seven. " * 20, "budget": 30, "session_id": "s"}
        item = ctx.post("/v1/compress", asked).json["item_id"]
        assert ctx.get(f"/v1/items/{item}/restore").status == 200
        ctx.ask("DELETE", "/v1/entities/user/ann")
        assert ctx.get(f"/v1/items/{item}/restore").status == 404
        assert ctx.post("/v1/compress", asked).status == 404

    def test_erasing_a_user_takes_all_sessions(self, ctx: Gateway, upstream: Upstream) -> None:
        """And no one else's."""
        for session, user in (("a", "ann"), ("b", "ann"), ("c", "bob")):
            ctx.chat(talk(session), x_ctxmem_session=session, x_ctxmem_user=user)
        receipt = ctx.ask("DELETE", "/v1/entities/user/ann").json
        assert receipt["scope"] == "user:ann"
        assert receipt["counts"]["sessions"] == 2
        assert [one["id"] for one in ctx.get("/v1/sessions").json["sessions"]] == ["c"]


class TestCompress:
    """`POST /v1/compress`."""

    TEXT = "The committee met on Tuesday. It was, as it was, what it was. Plutonium costs 4,000 dollars in Ohio."

    def test_a_text_is_shortened_and_the_original_kept(self, ctx: Gateway) -> None:
        """Tokens, spans and the handle to restore it."""
        made = ctx.post("/v1/compress", {"text": self.TEXT, "ratio": 0.6}).json
        assert made["tokens_after"] <= 0.6 * made["tokens_before"]
        assert made["text"] != self.TEXT
        assert all(0 <= cut["start"] < cut["end"] <= len(self.TEXT) and cut["reason"] for cut in made["dropped"])
        assert ctx.get(f"/v1/items/{made['item_id']}/restore").json["message"]["content"] == self.TEXT

    def test_a_marked_text_is_brought_back(self, ctx: Gateway) -> None:
        """By the tool that is the same every time, in this tenant."""
        text = " ".join(f"The crane at quay {i} lifted {i * 7} crates of oranges before the rain." for i in range(40))
        done = ctx.post("/v1/compress", {"text": text, "budget": 400, "mark": True}).json
        handle = done["text"].rpartition(", ")[2].removesuffix("]")
        assert done["tokens_after"] <= 400
        assert ctx.get("/v1/tools").body == ctx.get("/v1/tools").body
        said = ctx.post("/v1/tools/ctx_restore", {"arguments": json.dumps({"handle": handle})}).json
        assert said == {"content": text}
        item = "it_" + handle.removeprefix("ctx:")
        assert ctx.get(f"/v1/items/{item}/restore").json["message"]["content"] == text
        said = ctx.post("/v1/tools/ctx_restore", {"arguments": {"handle": "ctx:" + "0" * 20}}).json
        assert said["content"].startswith("error: ")

    def test_messages_are_shortened_to_a_budget(self, ctx: Gateway) -> None:
        """The newest stays."""
        said = [{"role": ("user", "assistant")[i % 2], "content": f"{i} {self.TEXT}"} for i in range(9)]
        made = ctx.post("/v1/compress", {"messages": said, "budget": 200, "model": "m"}).json
        assert made["tokens_after"] <= 200
        assert made["messages"][-1] == said[-1]

    def test_what_fits_stays(self, ctx: Gateway) -> None:
        """And says why."""
        made = ctx.post("/v1/compress", {"messages": _say("hi"), "budget": 2000}).json
        assert (made["messages"], made["reason"], made["dropped"]) == (_say("hi"), "within_budget", [])


def test_tokenize_counts_texts_and_requests(ctx: Gateway) -> None:
    """A request costs more than its text; an unknown tokenizer is said to be no exact one."""
    text = ctx.post("/v1/tokenize", {"model": "m", "text": "hello there"}).json
    request = ctx.post("/v1/tokenize", {"model": "m", "messages": _say("hello there")}).json
    assert request["tokens"] > text["tokens"] > 0
    assert (text["exact"], text["model"]) == (False, "m")


def test_models_are_those_of_all_upstreams(ctx: Gateway, upstream: Upstream) -> None:
    """In the shape the SDK reads; one that fails is left out."""
    listed = {"object": "list", "data": [{"id": "gpt-x", "object": "model", "created": 7, "owned_by": "them"}]}
    upstream.answer = lambda request: whole(listed)
    with ctx.client() as client:
        assert [(model.id, model.owned_by) for model in client.models.list()] == [("gpt-x", "them")]
        assert client.models.retrieve("gpt-x").created == 7
    assert upstream.last.path == "/v1/models"
    upstream.answer = lambda request: whole({"error": {}}, 500)
    assert ctx.get("/v1/models").json == {"object": "list", "data": []}


def test_health_says_how_each_part_is(ctx: Gateway) -> None:
    """Open to anyone; no Redis and no worker are set here."""
    assert ctx.get("/livez").json == {"status": "ok"}
    ready = ctx.get("/readyz")
    assert (ready.status, ready.json) == (200, {"status": "ok", "sql": "ok", "worker": "none", "redis": "none"})


def test_metrics_count_tokens_and_errors(ctx: Gateway, upstream: Upstream) -> None:
    """Names as the specification has them, labels from the settings only."""
    ctx.chat(talk("hi"))
    text = ctx.get("/metrics").body.decode()
    for name in (
        "ctxmem_overhead_seconds_count",
        'ctxmem_upstream_ttfb_seconds_count{upstream="up"}',
        'ctxmem_tokens_total{stage="in"}',
        'ctxmem_requests_total{status="200",upstream="up"}',
        "ctxmem_inflight",
        "ctxmem_client_disconnect_total",
    ):
        assert name in text


def test_the_openapi_document_has_every_route(ctx: Gateway) -> None:
    """The raw ones too."""
    document = ctx.get("/openapi.json").json
    assert {"/v1/chat/completions", "/v1/context", "/v1/sessions/{session_id}/events", "/readyz"} <= set(
        document["paths"]
    )
    body: dict[str, Any] = document["paths"]["/v1/context"]["post"]["requestBody"]
    assert "messages" in body["content"]["application/json"]["schema"]["required"]


@pytest.mark.parametrize("reply", [completion("a"), completion(None, tool_calls=[])])
def test_the_log_has_the_answer_as_it_came(ctx: Gateway, upstream: Upstream, reply: dict[str, Any]) -> None:
    """Byte for byte, not as we would write it."""
    upstream.answer = lambda request: whole(reply)
    ctx.chat(talk("hi"), x_ctxmem_session="s")
    exported = ctx.get("/v1/sessions/s/export").body
    assert json.dumps(reply["choices"][0]["message"]).encode() in exported
