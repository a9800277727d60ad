"""Policy `ccm` end to end: a real gateway, and a real model worker that is killed in the middle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from service.settings import Settings
from service.settings import Upstream as UpstreamSettings
from tests.service.conftest import Answer, Gateway, served
from tests.service.test_documents import Work
from tests.service.upstream import Upstream

pytestmark = pytest.mark.model

BUDGET = "900"
LONG = "the harbour tram leaves at nine and comes back past the old mill where the bakery sells rye bread " * 3
SAID = [{"role": ("user", "assistant")[at % 2], "content": f"{at}: {LONG}"} for at in range(18)]
QUESTION = {"role": "user", "content": "When does the tram leave?"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[tuple[Gateway, Work]]:
    """A gateway, its worker, and another upstream."""
    folder = tmp_path_factory.mktemp("ccm")
    work = Work(folder)
    up = UpstreamSettings(name="up", base_url=shared_upstream.url, models=("m",))
    with served(Settings(data_dir=folder, port=0, upstreams=(up,))) as running:
        work.start()
        yield running, work
        work.kill()


@pytest.fixture
def ctx(both: tuple[Gateway, Work]) -> Gateway:
    """The gateway, asked by a tenant of the test's own."""
    return Gateway(both[0].port, both[0].app)


def asked(ctx: Gateway, session: str, *more: dict[str, str], model: str = "smollm2", **headers: str) -> Answer:
    """One greedy turn under policy `ccm`, all history sent."""
    body = {"model": model, "messages": [*SAID, *more], "temperature": 0, "max_tokens": 4}
    wishes = {"x_ctxmem_policy": "ccm", "x_ctxmem_budget": BUDGET, "x_ctxmem_session": session, **headers}
    answer = ctx.chat(body, **wishes)
    assert answer.status == 200, answer.body
    return answer


def slots(answer: Answer) -> int:
    """Slots of memory that an answer was written behind."""
    return int(answer.json["usage"]["prompt_tokens_details"].get("memory_slots", 0))


def until_remembered(ctx: Gateway, session: str, *more: dict[str, str]) -> Answer:
    """The same turn again until the memory behind it has been made."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        answer = asked(ctx, session, *more)
        if slots(answer):
            return answer
        time.sleep(0.5)
    raise AssertionError("no memory was made")


def receipt(ctx: Gateway, answer: Answer) -> Any:
    return ctx.get(f"/v1/requests/{answer.headers['x-ctxmem-request-id']}").json


def test_an_epoch_leaves_memory_and_the_next_turns_answer_from_it(both: tuple[Gateway, Work], ctx: Gateway) -> None:
    """Text has to do until the memory is there; afterwards the prompt is shorter by the state's text.

    After `kill -9` of the worker the answer is the same, from the memory in SQL.
    """
    first = asked(ctx, "s", QUESTION)
    assert slots(first) == 0
    account = receipt(ctx, first)
    assert account["action"] == "epoch"
    assert {"memory", "kept"} <= {item["decision"] for item in account["items"]}
    remembered = until_remembered(ctx, "s", QUESTION)
    usage, before = remembered.json["usage"], first.json["usage"]
    assert 0 < slots(remembered) <= 9 * 4
    assert usage["prompt_tokens_details"]["memory_bytes"] == slots(remembered) * 23_040
    assert usage["prompt_tokens"] < before["prompt_tokens"]
    assert receipt(ctx, remembered)["usage"]["memory_slots"] == slots(remembered)
    _, work = both
    work.kill()
    work.start()
    again = asked(ctx, "s", QUESTION)
    assert slots(again) == slots(remembered)
    assert again.json["choices"] == remembered.json["choices"]
    assert ctx.ask("DELETE", "/v1/sessions/s").json["counts"]["slots"] == 1


def test_other_upstreams_get_the_state_as_text(ctx: Gateway, upstream: Upstream) -> None:
    """And no word of a memory; so does a local model that is asked by the text alone."""
    asked(ctx, "s", QUESTION, model="m")
    sent = upstream.received[-1]
    assert "x-ctxmem-memory" not in sent.headers
    assert any("Memory of the conversation so far" in message["content"] for message in sent.json["messages"])


def test_a_client_cannot_name_a_memory(both: tuple[Gateway, Work], ctx: Gateway) -> None:
    """The header is ours alone: another tenant's memory cannot be asked for."""
    asked(ctx, "s", QUESTION)
    until_remembered(ctx, "s", QUESTION)
    other = Gateway(ctx.port, ctx.app)
    named = ctx.get("/v1/sessions/s/events").json["events"]
    state = next(event["event_id"] for event in named if event["origin"] == "ctxmem:state")
    answer = other.chat(
        {"model": "smollm2", "messages": [QUESTION, QUESTION], "max_tokens": 1},
        x_ctxmem_memory=f"{ctx.key};s;{state};0",
    )
    assert answer.status == 200
    assert slots(answer) == 0
