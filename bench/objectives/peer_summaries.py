"""Runs LangChain's SummarizationMiddleware or langmem's summarize_messages: JSON requests in, answers out, by lines.

Their code decides when to summarise and what the model sees; the model is the bench's script, asked back over the pipe.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from typing import Any

from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph.message import add_messages

summarize_messages: Any = import_module("langmem.short_term").summarize_messages
_KINDS = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
_ROLES = {"system": "system", "human": "user", "ai": "assistant"}
KEPT = 6
"""Messages that LangChain keeps behind a summary; with its default of 20 the kept ones alone are over the trigger."""


def tell(**told: object) -> None:
    """Answer with one line."""
    print(json.dumps(told), flush=True)


class Script(BaseChatModel):
    """The language model at the other end of the pipe."""

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        tell(ask="\n".join(str(message.content) for message in messages))
        text = json.loads(sys.stdin.readline())["text"]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=text))])

    @property
    def _llm_type(self) -> str:
        return "script"


def langchain(tokens: int) -> Any:
    """Shows what the middleware makes of a thread."""
    middleware = SummarizationMiddleware(Script(), trigger=("tokens", tokens), keep=("messages", KEPT))
    thread: list[BaseMessage] = []

    def show(head: list[BaseMessage], new: list[BaseMessage]) -> list[BaseMessage]:
        nonlocal thread
        thread = add_messages(thread, new)
        changed = middleware.before_model({"messages": thread}, None)
        if changed is not None:
            thread = add_messages(thread, changed["messages"])
        return head + [message for message in thread if not isinstance(message, RemoveMessage)]

    return show


def langmem(tokens: int) -> Any:
    """Shows what `summarize_messages` makes of a thread."""
    thread: list[BaseMessage] = []
    running = None

    def show(head: list[BaseMessage], new: list[BaseMessage]) -> list[BaseMessage]:
        nonlocal running
        thread.extend(new)
        result = summarize_messages(
            thread,
            running_summary=running,
            model=Script(),
            max_tokens=tokens,
            max_tokens_before_summary=tokens,
            max_summary_tokens=700,
        )
        running = result.running_summary
        return head + result.messages

    return show


def main() -> None:
    """Serve until the input ends."""
    show: Any = None
    head: list[BaseMessage] = []
    stamp = int(time.time() * 1000)
    for line in sys.stdin:
        asked = json.loads(line)
        new = []
        for said in asked["messages"]:
            stamp += 1
            new.append(_KINDS[said["role"]](content=said["content"], id=f"m{stamp}"))
        if asked["do"] == "begin":
            head = [message for message in new if isinstance(message, SystemMessage)]
            new = new[len(head) :]
            show = {"langchain": langchain, "langmem": langmem}[asked["name"]](asked["tokens"])
        shown = show(head, new)
        tell(messages=[{"role": _ROLES[message.type], "content": str(message.content)} for message in shown])


if __name__ == "__main__":
    main()
