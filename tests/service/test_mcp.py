"""`/mcp` of the gateway, asked by the official client: whose memories these are only key and header say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.service.conftest import Gateway
from tests.unit.agents.test_mcp import asked, converse


@asynccontextmanager
async def connected(ctx: Gateway, user: str, key: str = "") -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {key or ctx.key}", "x-ctxmem-user": user}
    url = f"http://127.0.0.1:{ctx.port}/mcp"
    async with (
        httpx2.AsyncClient(headers=headers, timeout=20) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


async def test_a_client_remembers_and_finds(ctx: Gateway) -> None:
    """What it kept the REST API has too."""
    async with connected(ctx, "alice") as client:
        await converse(client)
    found = await asyncio.to_thread(ctx.get, "/v1/memories?user_id=alice")
    assert [one["memory"] for one in found.json["memories"]] == ["My cat is called Miso."]


async def test_no_client_reaches_another_user_or_tenant(ctx: Gateway) -> None:
    """The same user of another key is another's; many clients at once are kept apart."""
    async with (
        connected(ctx, "alice") as alice,
        connected(ctx, "bob") as bob,
        connected(ctx, "alice", "other") as other,
    ):
        await asyncio.gather(*(asked(alice, "add_memory", text=f"My locker has number {n}.") for n in range(4)))
        for client in (bob, other):
            assert (await asked(client, "search_memory", query="locker number?"))["results"] == []
        assert (await asked(alice, "search_memory", query="locker number?"))["results"]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 405),
        ("DELETE", {}, 405),
        ("POST", {}, 400),
        ("POST", {"x-ctxmem-user": "a", "host": "evil.org"}, 401),
    ],
)
async def test_refusals(ctx: Gateway, method: str, headers: dict[str, str], status: int) -> None:
    """No stream to wait on; nobody named; a page of another site without a key."""
    async with httpx2.AsyncClient() as http:
        keyed = {} if "host" in headers else {"authorization": f"Bearer {ctx.key}"}
        url = f"http://127.0.0.1:{ctx.port}/mcp"
        answer = await http.request(method, url, headers={**keyed, **headers}, content=b"{}")
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


async def test_what_is_no_message_is_told(ctx: Gateway) -> None:
    headers = {
        "authorization": f"Bearer {ctx.key}",
        "x-ctxmem-user": "a",
        "accept": "application/json, text/event-stream",
    }
    async with httpx2.AsyncClient() as http:
        for content in (b"", b"{", b"[]", b'{"jsonrpc":"2.0","method":1}'):
            url = f"http://127.0.0.1:{ctx.port}/mcp"
            answer = await http.post(url, headers={**headers, "content-type": "application/json"}, content=content)
            assert 400 <= answer.status_code < 500
