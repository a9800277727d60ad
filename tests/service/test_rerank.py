"""Reranking over HTTP: a real gateway, the shipped reranker in a real worker, and Cohere's own clients."""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

import cohere
import pytest

from ctxmem.stores.valkey import EmbeddedValkey
from service.settings import Settings
from tests.service.conftest import Gateway
from tests.service.worker_process import Work, beside_worker

QUERY = "who wrote Hamlet?"
TEXTS = ["Bread is made of flour.", "Hamlet is a play by William Shakespeare.", "", "The tram stops at nine."]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Work]]:
    """A gateway, its worker, and the cache that they share."""
    with TemporaryDirectory(prefix="ctxmem-") as folder:
        valkey = EmbeddedValkey(folder)
        valkey.start()
        settings = Settings(data_dir=tmp_path_factory.mktemp("rerank"), port=0, redis_url=valkey.url)
        with beside_worker(settings) as running:
            yield running
        valkey.kill()


@pytest.fixture
def ctx(both: tuple[Gateway, Work]) -> Gateway:
    """The gateway, asked by a tenant of the test's own."""
    return Gateway(both[0].port, both[0].app)


def asked(ctx: Gateway, **body: Any) -> Any:
    answer = ctx.post("/v1/rerank", {"query": QUERY, "documents": TEXTS, **body})
    assert answer.status == 200, answer.body
    return answer.json


def places(told: Any) -> list[int]:
    return [one["index"] for one in told["results"]]


def test_what_answers_comes_first(ctx: Gateway) -> None:
    """Scores fall from 1 to 0, where an empty text is."""
    told = asked(ctx)
    scores = [one["relevance_score"] for one in told["results"]]
    assert scores == sorted(scores, reverse=True)
    assert (places(told)[0], places(told)[-1], scores[-1]) == (1, 2, 0.0)
    assert 0.5 < scores[0] < 1 and "document" not in told["results"][0]
    assert told["meta"]["complete"] is True


def reranked(ctx: Gateway) -> dict[str, float]:
    """Texts put in order so far, by where their scores came from."""
    told = ctx.get("/metrics").body.decode().splitlines()
    lines = [line.split() for line in told if line.startswith("ctxmem_reranked_total")]
    return {name.split('"')[1]: float(value) for name, value in lines}


def test_what_was_scored_is_remembered(both: tuple[Gateway, Work], ctx: Gateway) -> None:
    """By the cache that outlives the worker; byte for byte, and for its tenant alone."""
    first = asked(ctx)["results"]
    before = reranked(ctx)
    assert asked(ctx)["results"] == first
    both[1].kill()
    both[1].start()
    assert asked(ctx)["results"] == first
    after = reranked(ctx)
    assert after["cache"] - before.get("cache", 0) == 6 and after["model"] - before["model"] == 2  # the empty one
    assert asked(Gateway(ctx.port, ctx.app))["results"] == first
    assert reranked(ctx)["model"] - after["model"] == 4


def test_a_search_says_how_much_was_remembered(ctx: Gateway) -> None:
    """`POST /v1/rerank` with a passage's words spares the search its reading."""
    rows = [{"id": str(place), "text": text} for place, text in enumerate(TEXTS) if text]
    assert ctx.post("/v1/documents", {"documents": rows}).status == 200
    asked(ctx, documents=TEXTS[:2])
    body = {"query": QUERY, "rerank": True}
    one = ctx.post("/v1/documents/search", body).json
    two = ctx.post("/v1/documents/search", body | {"top_k": 9}).json
    three = ctx.post("/v1/documents/search", body).json
    assert (one["stats"]["remembered"], two["stats"]["remembered"], three["stats"]["cached"]) == (2, 3, 1)
    assert one["results"] == two["results"] == three["results"]
    assert ctx.post("/v1/documents", {"documents": [{"id": "new", "text": "Hamlet again."}]}).status == 200
    four = ctx.post("/v1/documents/search", body).json
    assert "cached" not in four["stats"] and "new" in [one["document_id"] for one in four["results"]]


def test_as_many_as_are_wanted_with_their_texts(ctx: Gateway) -> None:
    """Documents may be objects; a top_n above their number means all."""
    rows = [{"text": text, "title": "ignored"} for text in TEXTS]
    told = asked(ctx, documents=rows, top_n=1, return_documents=True)
    assert [(one["index"], one["document"]) for one in told["results"]] == [(1, {"text": TEXTS[1]})]
    assert sorted(places(asked(ctx, top_n=99))) == [0, 1, 2, 3]


def test_past_a_deadline_comes_the_best_order_so_far(ctx: Gateway) -> None:
    told = asked(ctx, documents=["a long text about trams " * 60] * 200, top_n=3, deadline_ms=1)
    assert told["meta"]["complete"] is False
    assert len(told["results"]) == 3


@pytest.mark.parametrize("text", ["x" * 200_000, "\u05e9\u05dc\u05d5\u05dd \U0001f600 \u0000 \u202e", " \n\t "])
def test_odd_texts_are_ranked(ctx: Gateway, text: str) -> None:
    assert places(asked(ctx, documents=[text, TEXTS[1]])) == [1, 0]


def test_half_a_character_is_refused(ctx: Gateway) -> None:
    for body in (b'{"query": "\\ud800", "documents": ["a"]}', b'{"query": "a", "documents": ["\\udfff"]}'):
        assert ctx.post("/v1/rerank", body).status == 400


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": "one text"}, "documents"),
        ({"documents": ["a", 7]}, "documents.1"),
        ({"documents": [{"title": "a"}]}, "documents.0"),
        ({"documents": ["a"] * 1001}, "documents"),
        ({"query": " "}, "query"),
        ({"query": None}, "query"),
        ({"query": "w" * 20_001}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": 1.5}, "top_n"),
        ({"top_n": True}, "top_n"),
        ({"deadline_ms": 0}, "deadline_ms"),
    ],
)
def test_bad_input_is_refused_by_name(ctx: Gateway, body: Any, param: str) -> None:
    answer = ctx.post("/v1/rerank", {"query": QUERY, "documents": TEXTS, **body})
    assert answer.status == 400
    assert answer.error["param"].startswith(param)


def test_cohere_s_clients_are_served(ctx: Gateway) -> None:
    """Both of its interfaces."""
    address = f"http://127.0.0.1:{ctx.port}"
    with (
        cohere.Client(ctx.key, base_url=address) as first,
        cohere.ClientV2(ctx.key, base_url=address) as second,
    ):
        one = first.rerank(model="m", query=QUERY, documents=TEXTS, top_n=2, return_documents=True)
        two = second.rerank(model="m", query=QUERY, documents=TEXTS, top_n=2)
    assert one.results[0].index == two.results[0].index == 1
    assert one.results[0].document is not None and one.results[0].document.text == TEXTS[1]
    assert one.results[0].relevance_score == two.results[0].relevance_score > 0.5


def test_memories_are_read_again(ctx: Gateway) -> None:
    for text in ("Hamlet, our dog, wrote off the sofa.", "Shakespeare is who wrote the play Hamlet."):
        assert ctx.post("/v1/memories", {"text": text, "user_id": "ann"}).status == 200
    wanted = {"query": "who wrote the play Hamlet?", "user_id": "ann", "rerank": True, "explain": True}
    told = ctx.post("/v1/memories/search", wanted).json
    assert told["ranked_by"] == "lexical+rerank"
    assert told["results"][0]["memory"].startswith("Shakespeare") and "rerank" in told["results"][0]["explain"]


def test_documents_are_read_again(ctx: Gateway) -> None:
    rows = [{"id": str(place), "text": text} for place, text in enumerate(TEXTS) if text]
    assert ctx.post("/v1/documents", {"documents": rows}).status == 200
    told = ctx.post("/v1/documents/search", {"query": QUERY, "rerank": True, "top_k": 1}).json
    assert (told["results"][0]["document_id"], told["degraded"]) == ("1", [])


def test_without_a_worker_it_says_so(shared_gateway: Gateway) -> None:
    assert shared_gateway.post("/v1/rerank", {"query": QUERY, "documents": TEXTS}).status == 503


def test_an_unknown_model_for_a_pipeline_is_named(ctx: Gateway) -> None:
    answer = ctx.post("/v1/documents/search", {"query": "x", "pipeline": "hyde", "model": "nobody-has-it"})
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert ctx.post("/v1/documents/search", {"query": "x", "pipeline": "magic"}).status == 400


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["hyde", "subquestions", "iterative"])
def test_the_local_model_writes_for_a_pipeline(ctx: Gateway, pipeline: str) -> None:
    rows = [{"id": str(place), "text": text} for place, text in enumerate(TEXTS) if text]
    assert ctx.post("/v1/documents", {"documents": rows}).status == 200
    told = ctx.post("/v1/documents/search", {"query": QUERY, "pipeline": pipeline, "rerank": True}).json
    assert (told["results"][0]["document_id"], told["degraded"]) == ("1", [])
