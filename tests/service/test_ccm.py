"""Policy `ccm` end to end: a real gateway, and a real model worker that is killed in the middle."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ctxmem.ports import SlotName
from service.settings import Settings
from service.settings import Upstream as UpstreamSettings
from service.worker.behind import HEADER, Behind
from service.worker.channel import UnixConnection
from tests.service.conftest import Answer, Gateway
from tests.service.upstream import Upstream
from tests.service.worker_process import Work, beside_worker

pytestmark = pytest.mark.model

BUDGET = "900"
LONG = "the harbour tram leaves at nine and comes back past the old mill where the bakery sells rye bread " * 3
SAID = [{"role": ("user", "assistant")[at % 2], "content": f"{at}: {LONG}"} for at in range(18)]
QUESTION = {"role": "user", "content": "When does the tram leave?"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[tuple[Gateway, Work]]:
    """A gateway, its worker, and another upstream."""
    up = UpstreamSettings(name="up", base_url=shared_upstream.url, models=("m",))
    folder = tmp_path_factory.mktemp("ccm")
    with beside_worker(Settings(data_dir=folder, port=0, upstreams=(up,))) as running:
        yield running


@pytest.fixture
def ctx(both: tuple[Gateway, Work]) -> Gateway:
    """The gateway, asked by a tenant of the test's own."""
    return Gateway(both[0].port, both[0].app)


@dataclass
class Talk:
    """A conversation under policy `ccm`, greedy, all of its history sent each time."""

    ctx: Gateway
    model: str = "smollm2"
    said: list[dict[str, str]] = field(default_factory=lambda: list(SAID))

    def ask(self) -> Answer:
        """One more turn."""
        self.said.append(QUESTION)
        wishes = {"x_ctxmem_policy": "ccm", "x_ctxmem_budget": BUDGET, "x_ctxmem_session": "s"}
        body = {"model": self.model, "messages": self.said, "temperature": 0, "max_tokens": 4}
        answer = self.ctx.chat(body, **wishes)
        assert answer.status == 200, answer.body
        self.said.append({"role": "assistant", "content": answer.json["choices"][0]["message"]["content"]})
        return answer

    def until_remembered(self) -> Answer:
        """Turns until one is answered from memory."""
        for _ in range(60):
            answer = self.ask()
            if slots(answer):
                return answer
            time.sleep(0.5)
        raise AssertionError("no memory was made")

    def state(self) -> str:
        """The event of its state."""
        events = self.ctx.get("/v1/sessions/s/events").json["events"]
        return next(event["event_id"] for event in events if event["origin"] == "ctxmem:state")


def slots(answer: Answer) -> int:
    """Slots of memory that an answer was written behind."""
    return int(answer.json["usage"]["prompt_tokens_details"].get("memory_slots", 0))


def receipt(ctx: Gateway, answer: Answer) -> Any:
    return ctx.get(f"/v1/requests/{answer.headers['x-ctxmem-request-id']}").json


def from_worker(work: Work, name: SlotName) -> Any:
    """What the worker itself answers behind a memory."""
    connection = UnixConnection(str(work.folder / "worker.sock"), timeout=60)
    asked = {"model": "smollm2", "messages": [{"role": "user", "content": "notes"}, QUESTION]}
    body = json.dumps({**asked, "temperature": 0, "max_tokens": 8, "logprobs": True}).encode()
    connection.request("POST", "/v1/chat/completions", body, {HEADER: Behind(name, 0).header})
    with connection.getresponse() as response:
        told = json.loads(response.read())
    connection.close()
    return told["choices"], told["usage"]


def test_an_epoch_leaves_memory_and_the_next_turns_answer_from_it(both: tuple[Gateway, Work], ctx: Gateway) -> None:
    """Text has to do until the memory is there. After `kill -9` of the worker it is the same, bit for bit."""
    talk = Talk(ctx)
    first = talk.ask()
    assert slots(first) == 0
    account = receipt(ctx, first)
    assert account["action"] == "epoch"
    assert {"memory", "kept"} <= {item["decision"] for item in account["items"]}
    remembered = talk.until_remembered()
    usage = remembered.json["usage"]
    assert 0 < slots(remembered) <= 9 * 4
    assert usage["prompt_tokens_details"]["memory_bytes"] == slots(remembered) * 23_040
    told = int(remembered.headers["x-ctxmem-tokens"].partition(";")[2])
    assert usage["prompt_tokens"] < told
    tenant = ctx.app.service.tenants.of({b"authorization": f"Bearer {ctx.key}".encode()})
    name, (_, work) = SlotName(tenant, "s", talk.state()), both
    before = from_worker(work, name)
    assert before[1]["prompt_tokens_details"]["memory_slots"] == slots(remembered)
    work.kill()
    work.start()
    assert from_worker(work, name) == before
    assert ctx.ask("DELETE", "/v1/sessions/s").json["counts"]["slots"] == 1


def test_other_upstreams_get_the_state_as_text(ctx: Gateway, upstream: Upstream) -> None:
    """And no word of a memory."""
    Talk(ctx, "m").ask()
    sent = upstream.received[-1]
    assert HEADER not in sent.headers
    assert any("Memory of the conversation so far" in message["content"] for message in sent.json["messages"])


def test_a_client_cannot_name_a_memory(ctx: Gateway) -> None:
    """The header is ours alone: another tenant's memory cannot be asked for."""
    talk = Talk(ctx)
    talk.until_remembered()
    tenant = ctx.app.service.tenants.of({b"authorization": f"Bearer {ctx.key}".encode()})
    named = Behind(SlotName(tenant, "s", talk.state()), 0).header
    other = Gateway(ctx.port, ctx.app)
    answer = other.chat({"model": "smollm2", "messages": [QUESTION, QUESTION], "max_tokens": 1}, x_ctxmem_memory=named)
    assert answer.status == 200
    assert slots(answer) == 0
