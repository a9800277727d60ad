"""Anthropic's memory tool over ctxmem: the SDK's runner does what the model asks for, and the files stay per user.

Runs offline: a function stands for the model's server. python examples/anthropic_memory.py
"""

import json

import httpx2
from anthropic import Anthropic

from ctxmem import ContextManager
from ctxmem.agents.anthropic import CtxMemMemoryTool


def server(request: httpx2.Request) -> httpx2.Response:
    """Stands for the model's server: writes down what it was told, then says so."""
    last = json.loads(request.content)["messages"][-1]["content"]
    command = {"command": "create", "path": "/memories/likes.md", "file_text": "likes tea\n"}
    call = {"type": "tool_use", "id": "t1", "name": "memory", "input": command}
    told = {"type": "text", "text": "I will remember that."}
    usage = {"input_tokens": 1, "output_tokens": 1}
    said = {"content": [call], "stop_reason": "tool_use"} if isinstance(last, str) else {"content": [told]}
    return httpx2.Response(
        200,
        json={
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "stop_reason": "end_turn",
            "usage": usage,
        }
        | said,
    )


manager = ContextManager("sqlite://")
memory = CtxMemMemoryTool(manager=manager, user="alice")
client = Anthropic(api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(server)))
said = [{"role": "user", "content": "Remember that I like tea."}]
runner = client.beta.messages.tool_runner(model="m", max_tokens=64, messages=said, tools=[memory])
print(runner.until_done().content[0].text)
print(memory.call({"command": "view", "path": "/memories/likes.md"}))
manager.erase_user("alice")
print(memory.call({"command": "view", "path": "/memories"}).splitlines()[-1])
manager.close()
