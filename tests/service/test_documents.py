"""Documents over HTTP: a real gateway, and a real model worker in a process of its own."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest

from service.settings import Settings
from tests.service.conftest import Gateway
from tests.service.worker_process import Work, beside_worker

TEXTS = {"tram": "The tram to the harbour stops at nine.", "cat": "A kitten sleeps on the warm windowsill."}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Work]]:
    """A gateway and its worker."""
    with beside_worker(Settings(data_dir=tmp_path_factory.mktemp("documents"), port=0)) as running:
        yield running


@pytest.fixture
def ctx(both: tuple[Gateway, Work]) -> Gateway:
    """The gateway, asked by a tenant of the test's own."""
    return Gateway(both[0].port, both[0].app)


def put(ctx: Gateway, **texts: str) -> Any:
    answer = ctx.post("/v1/documents", {"documents": [{"id": id, "text": text} for id, text in texts.items()]})
    assert answer.status == 200, answer.body
    return answer.json


def found(ctx: Gateway, query: str, **more: Any) -> list[str]:
    answer = ctx.post("/v1/documents/search", {"query": query, **more})
    assert answer.status == 200, answer.body
    return [one["document_id"] for one in answer.json["results"]]


def test_what_was_put_in_is_found_listed_read_and_deleted(ctx: Gateway) -> None:
    assert put(ctx, **TEXTS) == {"ids": ["tram", "cat"], "written": 2, "chunks": 2, "embedded": 2}
    assert put(ctx, **TEXTS)["written"] == 0
    answer = ctx.post("/v1/documents/search", {"query": "where does a small cat nap?", "top_k": 1}).json
    one = answer["results"][0]
    assert (one["document_id"], one["text"], one["start"], one["end"]) == ("cat", TEXTS["cat"], 0, len(TEXTS["cat"]))
    assert (answer["exact"], answer["coverage"], answer["degraded"]) == (True, 1.0, [])
    assert [one["id"] for one in ctx.get("/v1/documents").json["documents"]] == ["cat", "tram"]
    assert ctx.get("/v1/documents/cat").json["text"] == TEXTS["cat"]
    assert ctx.ask("DELETE", "/v1/documents/cat").json == {"id": "cat", "deleted": True}
    assert found(ctx, "where does a small cat nap?") == ["tram"]
    assert ctx.get("/v1/documents/cat").status == 404
    assert ctx.ask("DELETE", "/v1/documents/cat").status == 404


def test_tenants_users_and_budgets(ctx: Gateway) -> None:
    rows = [{"id": user, "text": f"the tram of {user}", "user_id": user} for user in ("ada", "bob")]
    assert ctx.post("/v1/documents", {"documents": rows}).status == 200
    assert found(ctx, "tram", filters={"user_id": "ada"}) == ["ada"]
    assert found(Gateway(ctx.port, ctx.app), "tram") == []
    assert found(ctx, "tram", budget=0) == []
    assert len(found(ctx, "tram", budget=1000)) == 2
    assert ctx.ask("DELETE", "/v1/entities/user/ada").json["counts"]["documents"] == 1
    assert found(ctx, "tram") == ["bob"]


def test_files_go_as_base64(ctx: Gateway) -> None:
    row = {"name": "guide.md", "data": base64.b64encode(b"# Keys\n\nPress reset twice.").decode()}
    assert ctx.post("/v1/documents", {"documents": [row]}).json["ids"] == ["guide.md"]
    one = ctx.post("/v1/documents/search", {"query": "reset"}).json["results"][0]
    assert (one["title"], one["lead"], one["text"]) == ("Keys", "Keys", "Press reset twice.")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/documents", {"documents": []}, "documents"),
        ("/v1/documents", {"documents": [{"id": "x"}]}, "documents.0"),
        ("/v1/documents", {"documents": [{"text": "a", "path": "/etc/passwd"}]}, "documents.0.path"),
        ("/v1/documents", {"documents": [{"data": "%%%"}]}, "documents[0].data"),
        ("/v1/documents", {"documents": [{"name": "a.txt", "data": "AAEC"}]}, "text"),
        ("/v1/documents", {"documents": [{"id": "x", "text": "a"}, {"id": "x", "text": "b"}]}, "documents[1].id"),
        ("/v1/documents/search", {"query": " "}, "query"),
        ("/v1/documents/search", {"query": "x", "top_k": -1}, "top_k"),
        ("/v1/documents/search", {"query": "x", "mode": "magic"}, "mode"),
        ("/v1/documents/search", {"query": 3}, "query"),
        ("/v1/embeddings", {"input": []}, None),
    ],
)
def test_bad_input_is_refused_by_name(ctx: Gateway, path: str, body: Any, param: str | None) -> None:
    answer = ctx.post(path, body)
    assert answer.status == 400
    assert param is None or answer.error["param"] == param
    assert ctx.get("/v1/documents").json["documents"] == []


def test_embeddings_speak_openai(ctx: Gateway) -> None:
    with ctx.client() as client:
        made = client.embeddings.create(model="minilm", input=["a cat", "a kitten", "a bond"])
        one = client.embeddings.create(model="minilm", input="a cat", encoding_format="float")
    cat, kitten, bond = (line.embedding for line in made.data)
    assert sum(x * y for x, y in zip(cat, kitten, strict=True)) > sum(x * y for x, y in zip(cat, bond, strict=True))
    assert one.data[0].embedding == pytest.approx(cat, abs=1e-5)


def job_done(ctx: Gateway, job_id: str, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while (job := ctx.get(f"/v1/jobs/{job_id}").json)["state"] != "done" and time.monotonic() < end:
        time.sleep(0.2)
    return job


def test_what_is_left_for_later_is_done_by_a_job(ctx: Gateway) -> None:
    body = {"documents": [{"id": "tram", "text": TEXTS["tram"]}], "wait": False}
    job_id = ctx.post("/v1/documents", body).json["job_id"]
    assert found(ctx, "tram") == ["tram"]
    assert job_done(ctx, job_id)["progress"] == {"done": 1, "of": 1}
    again = ctx.post("/v1/documents/reembed", {})
    assert again.status == 202
    assert job_done(ctx, again.json["job_id"])["state"] == "done"
    assert ctx.get("/v1/jobs/jb_none").status == 404


@pytest.mark.slow
def test_a_killed_worker_goes_on_after_its_restart(both: tuple[Gateway, Work], ctx: Gateway) -> None:
    """Nothing is lost, and no chunk is there twice."""
    work = both[1]
    rows = [{"id": f"d{n}", "text": f"Document {n} is about the {n}th tram. " * 80} for n in range(60)]
    done = ctx.post("/v1/documents", {"documents": rows, "wait": False}).json
    while not ctx.get(f"/v1/jobs/{done['job_id']}").json["progress"]:
        time.sleep(0.05)
    work.kill()
    first = ctx.get(f"/v1/jobs/{done['job_id']}").json
    assert first["state"] == "running" and first["progress"]["done"] < first["progress"]["of"]
    assert ctx.post("/v1/documents/search", {"query": "tram"}).status == 503
    time.sleep(1.1)
    work.start()
    job = job_done(ctx, done["job_id"], 120)
    assert (job["state"], job["attempts"]) == ("done", 2)
    answer = ctx.post("/v1/documents/search", {"query": "tram", "top_k": 1000}).json
    assert answer["coverage"] == 1.0
    assert len({one["id"] for one in answer["results"]}) == len(answer["results"]) == done["chunks"]


def test_a_search_is_prepared_for(ctx: Gateway) -> None:
    """By its text, by what a session's user said last, or by its namespace; what is found stays the same."""
    put(ctx, **TEXTS)
    asked = "where does a small cat nap?"
    plain = found(ctx, asked)
    ctx.post("/v1/sessions/s/events", {"messages": [{"role": "user", "content": asked}]})
    rewritten = {"text": asked, "written": ""}, {"text": asked, "written": "what has been made of it by now"}
    for body in ({"text": asked}, *rewritten, {"session_id": "s"}, {}, {"namespace": "empty", "text": asked}):
        answer = ctx.post("/v1/prefetch", body)
        assert answer.status == 202, answer.body
        assert answer.json["ticket"].startswith("pf_")
        assert found(ctx, asked) == plain
    assert ctx.post("/v1/prefetch", {"session_id": "nobody"}).status == 404
    assert ctx.post("/v1/prefetch", {"namespace": ""}).status == 400
    assert ctx.post("/v1/prefetch", {"text": 1}).status == 400
