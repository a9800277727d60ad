"""The state of a session over HTTP, and a model that writes it after answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from service.settings import Upstream as UpstreamSettings
from tests.service.conftest import Gateway, served, talk, wait_for
from tests.service.upstream import Received, Reply, Upstream, completion, whole

NOTED = "Deliveries go to 14 Rue Cler."


def scripted(request: Received) -> Reply:
    """Answers chats in a sentence, and updates of a state with one operation."""
    if "memory" not in str(request.json["messages"][0]["content"]):
        return whole(completion("Noted, I will take care of that for you. " * 4))
    return whole(completion(json.dumps({"ops": [{"op": "add", "sec": "facts", "text": NOTED}]})))


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Gateway, Upstream]]:
    """A gateway whose states are written by a model of its upstream."""
    with Upstream() as upstream:
        upstream.answer = scripted
        ups = (UpstreamSettings(name="up", base_url=upstream.url),)
        settings = Settings(data_dir=tmp_path, model="", port=0, upstreams=ups, policy="mem1", state_model="writer")
        with served(settings) as running:
            yield running, upstream


def turn(ctx: Gateway, number: int) -> str:
    """One chat of a client that sends what is new; what was done."""
    said = f"Order {number}: please send {number + 3} crates of oranges to the shop in street number {number}. " * 3
    answer = ctx.chat(talk(said), x_ctxmem_session="s", x_ctxmem_budget="1500")
    assert answer.status == 200, answer.body
    return answer.headers["x-ctxmem-action"]


def state(ctx: Gateway, query: str = "", status: int = 200) -> Any:
    answer = ctx.get(f"/v1/sessions/s/state{query}")
    assert answer.status == status, answer.body
    return answer.json


def test_a_model_writes_the_state_and_the_epoch_uses_it(both: tuple[Gateway, Upstream]) -> None:
    """In the background: requests are the same until the epoch."""
    ctx, upstream = both
    actions: list[str] = []
    while not any(action.startswith("epoch") for action in actions) and len(actions) < 40:
        actions.append(turn(ctx, len(actions)))
        if len(actions) > 6:
            wait_for(lambda: state(ctx)["waiting"])
    assert actions[-1].startswith("epoch")
    sent = next(one for one in reversed(upstream.received) if one.json["model"] == "m")
    assert any(NOTED in str(message["content"]) for message in sent.json["messages"])
    wait_for(lambda: state(ctx)["waiting"])
    shown = state(ctx, "?history=true&sources=true&diff=0")
    assert NOTED in {item["text"] for item in shown["items"]}
    assert len(shown["history"]) == shown["version"] >= 2
    assert {one["waiting"] for one in shown["history"]} == {True, False}
    assert [item["id"] for item in shown["diff"]["added"]] == [item["id"] for item in shown["items"]]
    assert all(one["tokens"] <= one["bound"] for one in shown["history"])
    assert all(item["src"] for item in shown["items"])


def test_states_by_number(ctx: Gateway) -> None:
    """Without a model for it states are extracted at the epoch."""
    state(ctx, status=404)
    for number in range(14):
        said = f"Order {number}: {number + 3} crates of oranges for street number {number}. " * 6
        answer = ctx.chat(talk(said), x_ctxmem_session="s", x_ctxmem_budget="1200", x_ctxmem_policy="mem1")
        assert answer.status == 200
    newest = state(ctx)
    assert newest["version"] > 1
    assert not newest["waiting"]
    assert newest.keys() >= {"version", "goal", "pins", "items", "tokens", "bound"}
    assert state(ctx, f"?version={newest['version']}") == newest
    first = state(ctx, "?version=1&diff=0")
    assert len(first["diff"]["added"]) == len(first["items"]) > 0
    for query in ("?version=99", "?diff=99"):
        state(ctx, query, status=404)
    for query in ("?version=-1", "?version=x", "?history=perhaps"):
        state(ctx, query, status=400)
    assert Gateway(ctx.port, ctx.app).get("/v1/sessions/s/state").status == 404
