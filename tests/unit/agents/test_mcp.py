"""The MCP server, asked by the official client: in this process, over stdio and over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from ctxmem import ContextManager
from ctxmem.agents.mcp import build_server
from ctxmem.errors import InvalidInput
from ctxmem.manager.reversible import Reversible

COMMAND = "from ctxmem.cli import main; main()"
TOOLS = ["add_memory", "delete_memory", "list_memories", "restore", "search_memory", "update_memory"]


async def asked(client: Client, tool: str, **arguments: Any) -> Any:
    """What a tool says; its words when it fails."""
    answer = await client.call_tool(tool, arguments)
    if answer.is_error:
        return answer.content[0].text
    return answer.structured_content


async def converse(client: Client) -> None:
    """Remember, find, put right, delete."""
    assert sorted(tool.name for tool in (await client.list_tools()).tools) == TOOLS
    added = (await asked(client, "add_memory", text="I live in Lisbon."))["results"]
    assert [one["event"] for one in added] == ["ADD"]
    await asked(client, "add_memory", text="My cat is called Miso.")
    found = (await asked(client, "search_memory", query="Where do I live?", top_k=1))["results"]
    assert [one["memory"] for one in found] == ["I live in Lisbon."]
    await asked(client, "update_memory", memory_id=added[0]["id"], text="I live in Porto.")
    listed = (await asked(client, "list_memories"))["results"]
    assert [one["memory"] for one in listed] == ["I live in Porto.", "My cat is called Miso."]
    assert await asked(client, "delete_memory", memory_id=added[0]["id"]) == {"deleted": added[0]["id"]}
    assert len((await asked(client, "list_memories"))["results"]) == 1


class TestTools:
    async def test_a_memory_is_kept_found_put_right_and_deleted(self, manager: ContextManager) -> None:
        """In this process."""
        async with Client(build_server(manager, user="alice")) as client:
            await converse(client)

    async def test_no_tool_reaches_another_scope(self, manager: ContextManager) -> None:
        """Not by search, not by id, not by an argument; a wrong id and another's id read alike."""
        theirs = manager.memories.add("I live in Rome.", "bob").results[0].id
        other = manager.for_tenant("other").memories.add("I live in Oslo.", "alice").results[0].id
        async with Client(build_server(manager, user="alice")) as client:
            assert (await asked(client, "search_memory", query="Where do I live?"))["results"] == []
            assert (await asked(client, "list_memories"))["results"] == []
            for wrong in (theirs, other, "mem_" + "0" * 32):
                for tool, more in (("delete_memory", {}), ("update_memory", {"text": "x"})):
                    said = await asked(client, tool, memory_id=wrong, **more)
                    assert said.endswith(f": no memory {wrong!r}")
            await asked(client, "search_memory", query="Where?", user="bob", user_id="bob", tenant="other")
            for tool in (await client.list_tools()).tools:
                assert not {"tenant", "user", "user_id", "session", "session_id"} & set(tool.input_schema["properties"])
        assert manager.memories.get(theirs).text == "I live in Rome."

    async def test_an_original_comes_back_by_its_handle(self, manager: ContextManager) -> None:
        """And a wrong one is answered in words."""
        kept = manager.engine.store.put_artifact("default", b'{"role":"user","content":"all of it"}')
        async with Client(build_server(manager, user="alice")) as client:
            assert await asked(client, "restore", handle=f"ctx:{kept[:20]}") == {"result": "all of it"}
            said = await asked(client, "restore", handle="ctx:" + "0" * 20)
        assert said == {"result": Reversible.of(manager).answer({"handle": "ctx:" + "0" * 20})}

    async def test_wrong_arguments_are_told_in_words(self, manager: ContextManager) -> None:
        """And nobody named is refused before anything is served."""
        async with Client(build_server(manager, user="alice")) as client:
            assert "text of 1 to" in await asked(client, "search_memory", query="  ")
            assert "top_k" in await asked(client, "search_memory", query="x", top_k=-1)
        with pytest.raises(InvalidInput):
            build_server(manager, user="")


class TestCommand:
    async def test_over_stdio(self, tmp_path: Path) -> None:
        """`ctxmem mcp` as a client starts it; what it kept is there for the next one."""
        command = ["-c", COMMAND, "--data-dir", str(tmp_path), "mcp", "--user", "alice"]
        for turn in range(2):
            server = StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))
            async with Client(stdio_client(server)) as client:
                if turn == 0:
                    await converse(client)
                assert len((await asked(client, "list_memories"))["results"]) == 1

    async def test_over_http(self, tmp_path: Path) -> None:
        """At `/mcp`; two clients at once see the same memories."""
        with served(tmp_path) as url:
            async with Client(url) as client, Client(url) as other:
                await converse(client)
                assert len((await asked(other, "list_memories"))["results"]) == 1

    @pytest.mark.parametrize("address", ["0.0.0.0:80", "example.org:80", "127.0.0.1", "127.0.0.1:0", ":80"])
    def test_other_machines_are_not_let_in(self, tmp_path: Path, address: str) -> None:
        """The address must be this machine's own."""
        run = [sys.executable, "-c", COMMAND, "--data-dir", str(tmp_path), "mcp", "--user", "a", "--http", address]
        done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = [sys.executable, "-c", COMMAND, "--data-dir", str(folder)]
    process = subprocess.Popen([*run, "mcp", "--user", "alice", "--http", f"127.0.0.1:{port}", "--json"])
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
