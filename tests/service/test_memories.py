"""Long-term memories over HTTP: the wire, its bad input, preconditions, and that erasing a user leaves nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from ctxmem.stores.valkey import EmbeddedValkey
from service.settings import Settings
from service.settings import Upstream as UpstreamSettings
from tests.service.conftest import Gateway, served, talk
from tests.service.upstream import Upstream


def add(ctx: Gateway, text: str, **rest: Any) -> dict[str, Any]:
    """Add one statement; its result."""
    answer = ctx.post("/v1/memories", {"text": text, "user_id": "ann", **rest})
    assert answer.status == 200, answer.body
    (result,) = answer.json["results"]
    return result


def found(ctx: Gateway, query: str, **rest: Any) -> list[str]:
    answer = ctx.post("/v1/memories/search", {"query": query, "user_id": "ann", **rest})
    assert answer.status == 200, answer.body
    return [one["memory"] for one in answer.json["results"]]


def test_what_was_said_in_a_chat_is_remembered_with_its_place(ctx: Gateway, upstream: Upstream) -> None:
    """The source is the event that the chat logged."""
    said = "My brother Tom repairs violins in Cremona."
    ctx.chat(talk(said), x_ctxmem_session="s", x_ctxmem_user="ann")
    logged = ctx.get("/v1/sessions/s/events").json["events"]
    done = ctx.post("/v1/memories", {"messages": talk(said)["messages"], "user_id": "ann", "session_id": "s"})
    assert [one["event"] for one in done.json["results"]] == ["ADD"]
    answer = ctx.post("/v1/memories/search", {"query": "who repairs violins", "user_id": "ann", "explain": True})
    (hit,) = answer.json["results"]
    assert hit["sources"] == [{"event_id": logged[0]["event_id"], "start": 0, "end": len(said)}]
    assert 0 < hit["score"] <= 1
    assert hit["explain"].keys() == {"lexical"}
    assert answer.json["ranked_by"] == "lexical"
    assert len(ctx.get("/v1/sessions/s/events").json["events"]) == len(logged)


def test_messages_come_whole(ctx: Gateway) -> None:
    """With the memories that each is made of."""
    said = "My name is Ann. I live in Oslo."
    done = ctx.post("/v1/memories", {"text": said, "user_id": "ann"}).json["results"]
    asked = {"query": "who lives in Oslo", "user_id": "ann", "whole": True}
    (hit,) = ctx.post("/v1/memories/search", asked).json["results"]
    assert (hit["memory"], hit["message"]) == ("I live in Oslo.", said)
    assert hit["beside"] == [one["id"] for one in done]


def test_a_fact_that_changed_is_asked_for_as_of_its_time(ctx: Gateway) -> None:
    """In seconds or as a date."""
    add(ctx, "I live in Oslo.", valid_from="2020-01-01T00:00:00Z")
    assert add(ctx, "I moved to Bergen.", valid_from=1_700_000_000)["event"] == "UPDATE"
    assert found(ctx, "live moved") == ["I moved to Bergen."]
    assert found(ctx, "live moved", as_of="2021-06-01T00:00:00+02:00") == ["I live in Oslo."]
    assert ctx.get("/v1/profile?user_id=ann").json["settled"]["live"]["memory"] == "I moved to Bergen."
    assert len(ctx.get("/v1/memories?user_id=ann").json["memories"]) == 2


def test_changes_go_by_the_etag(ctx: Gateway) -> None:
    """A stale one is a conflict and changes nothing."""
    path = f"/v1/memories/{add(ctx, 'I keep bees.')['id']}"
    first = ctx.get(path)
    assert first.headers["etag"] == '"1"'
    changed = ctx.ask("PATCH", path, {"text": "I keep wasps.", "metadata": {"a": 1}}, if_match=first.headers["etag"])
    assert (changed.status, changed.headers["etag"]) == (200, '"2"')
    for method, body in (("PATCH", {"text": "x"}), ("DELETE", b"")):
        assert ctx.ask(method, path, body, if_match='"1"').status == 409
        assert ctx.ask(method, path, body, if_match="soon").status == 400
    assert ctx.get(path).json["memory"] == "I keep wasps."
    assert ctx.ask("DELETE", path, if_match='"2"').json["event"] == "DELETE"
    assert ctx.get(path).status == 404
    history = ctx.get(f"{path}/history").json["history"]
    assert [(one["event"], one["before"] + one["after"]) for one in history] == [
        ("ADD", ""),
        ("UPDATE", ""),
        ("DELETE", ""),
    ]


def test_an_idempotency_key_is_used_once(ctx: Gateway) -> None:
    """For the same body."""
    body = {"text": "I keep bees.", "user_id": "ann"}
    first, again = (ctx.ask("POST", "/v1/memories", body, idempotency_key="k") for _ in range(2))
    assert first.body == again.body
    assert ctx.ask("POST", "/v1/memories", {**body, "text": "x y"}, idempotency_key="k").status == 409


def test_forgetting_is_a_dry_run_first(ctx: Gateway) -> None:
    """And needs to be told what."""
    add(ctx, "Bob owes me money.")
    asked = {"user_id": "ann", "about": "Bob"}
    dry = ctx.post("/v1/memories/forget", asked).json
    assert (len(dry["forgotten"]), dry["dry_run"], len(found(ctx, "Bob"))) == (1, True, 1)
    assert ctx.post("/v1/memories/forget", {"user_id": "ann", "dry_run": False}).status == 400
    assert ctx.post("/v1/memories/forget", {**asked, "dry_run": False}).json["forgotten"] == dry["forgotten"]
    assert found(ctx, "Bob") == []


def test_memories_move_from_mem0_and_back(ctx: Gateway) -> None:
    """In its shape."""
    rows = [
        {"id": "x", "memory": "Keeps bees", "user_id": "ann", "created_at": "2024-05-01T10:00:00-07:00", "hash": "h"}
    ]
    assert ctx.post("/v1/memories/import", {"memories": rows}).json["results"][0]["event"] == "ADD"
    (line,) = ctx.get("/v1/memories/export?user_id=ann&format=mem0").body.splitlines()
    assert (json.loads(line)["memory"], json.loads(line)["created_at"][:10]) == ("Keeps bees", "2024-05-01")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {}),
        ("", {"text": "a"}),
        ("", {"text": "a", "user_id": ""}),
        ("", {"text": "", "user_id": "ann"}),
        ("", {"text": "a", "messages": [], "user_id": "ann"}),
        ("", {"messages": [{"role": 3}], "user_id": "ann"}),
        ("", {"text": "a", "user_id": "ann", "infer": True}),
        ("", {"text": "a", "user_id": "a" * 257}),
        ("", {"text": "a", "user_id": "ann", "valid_from": "yesterday"}),
        ("", {"text": "a", "user_id": "ann", "expires_at": "2024-01-01T00:00:00"}),
        ("", {"text": "a", "user_id": "ann", "surprise": 1}),
        ("/search", {"query": "", "user_id": "ann"}),
        ("/search", {"query": "a"}),
        ("/search", {"query": "a", "user_id": "ann", "top_k": 0}),
        ("/search", {"query": "a", "user_id": "ann", "top_k": "many"}),
        ("/search", {"query": "a", "user_id": "ann", "filters": {"a": {"near": 1}}}),
        ("/search", {"query": "a", "user_id": "ann", "rerank": True}),
        ("/import", {"memories": [], "user_id": "ann"}),
        ("/import", {"memories": [{"memory": "a"}]}),
    ],
)
def test_what_makes_no_sense_is_refused(ctx: Gateway, path: str, body: dict[str, Any]) -> None:
    """With an error object, and nothing is written."""
    answer = ctx.post(f"/v1/memories{path}", body)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert ctx.get("/v1/memories?user_id=ann").json["memories"] == []


def test_another_tenant_sees_nothing(ctx: Gateway) -> None:
    """Whatever the route."""
    made = add(ctx, "I keep bees.")
    other = Gateway(ctx.port, ctx.app)
    for method, path in (
        ("GET", ""),
        ("GET", "/history"),
        ("DELETE", ""),
    ):
        assert other.ask(method, f"/v1/memories/{made['id']}{path}").status == 404
    assert other.ask("PATCH", f"/v1/memories/{made['id']}", {"text": "x"}).status == 404
    assert found(other, "bees") == []
    assert other.get("/v1/profile?user_id=ann").json["total"] == 0
    assert other.ask("DELETE", "/v1/entities/user/ann").json["counts"].get("memories", 0) == 0
    assert found(ctx, "bees") == ["I keep bees."]


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    """A running cache, in a folder whose name is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="ctxmem-"))
    server = EmbeddedValkey(folder)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(folder)


def test_erasing_a_user_leaves_no_word_of_them(tmp_path: Path, upstream: Upstream, valkey: EmbeddedValkey) -> None:
    """In no file of the service and no key of its cache: chat, memories, history, queue; the receipt counts them."""
    secret = "xylophone7315"
    ups = (UpstreamSettings(name="up", base_url=upstream.url),)
    settings = Settings(data_dir=tmp_path, model="", port=0, upstreams=ups, redis_url=valkey.url)
    with served(settings) as running, Redis.from_url(valkey.url) as cache:
        running.chat(talk(f"The word is {secret}."), x_ctxmem_session="s", x_ctxmem_user="ann")
        first = add(running, f"I hid the {secret} in the barn.", metadata={"also": secret}, session_id="s")
        running.ask("PATCH", f"/v1/memories/{first['id']}", {"text": f"I hid the {secret} in the attic."})
        add(running, f"My favourite word is {secret}.")
        add(running, "Bob keeps bees.", user_id="bob")
        assert secret in str(found(running, f"where is the {secret}"))
        assert holding(tmp_path, secret)
        before = b"".join(cached(cache))
        assert b"memories/ann" in before
        assert secret.encode() not in before
        receipt = running.ask("DELETE", "/v1/entities/user/ann").json
        assert receipt["counts"]["memories"] == 2
        assert receipt["counts"]["events"] >= 3
        assert found(running, f"where is the {secret}") == []
        assert not holding(tmp_path, secret)
        after = b"".join(cached(cache))
        assert b"memories/ann" not in after
        assert b"live:s:" not in after
        assert running.post("/v1/memories/search", {"query": "bees", "user_id": "bob"}).json["results"]
    assert not holding(tmp_path, secret)


def cached(cache: Redis) -> Iterator[bytes]:
    """Every key and value of a cache."""
    for key in cache.scan_iter():
        yield key
        yield cache.get(key) or b""


def holding(folder: Path, word: str) -> list[Path]:
    """Files that hold a word."""
    return [file for file in folder.rglob("*") if file.is_file() and word.encode() in file.read_bytes()]
