"""Memories over MCP: each server speaks for one user, and no tool can ask for another's.

Runs offline, server and client in this process. python examples/mcp_memories.py
"""

import asyncio

from mcp import Client

from ctxmem import ContextManager
from ctxmem.agents.mcp import build_server


async def main() -> None:
    manager = ContextManager("sqlite://")
    async with Client(build_server(manager, user="alice")) as client:
        tools = (await client.list_tools()).tools
        print(", ".join(f"{tool.name}({', '.join(tool.input_schema['properties'])})" for tool in tools))
        await client.call_tool("add_memory", {"text": "I live in Lisbon."})
        found = await client.call_tool("search_memory", {"query": "Where do I live?"})
        print("alice finds:", found.structured_content["results"][0]["memory"])
    async with Client(build_server(manager, user="bob")) as client:
        found = await client.call_tool("search_memory", {"query": "Where do I live?"})
        print("bob finds", found.structured_content["results"] or "nothing")
    manager.close()


asyncio.run(main())
