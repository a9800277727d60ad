"""A graph that puts what it learns into the store, where later threads of the same user find it.

Runs offline. python examples/langgraph_store.py
"""

from dataclasses import dataclass
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from ctxmem import ContextManager
from ctxmem.agents.langgraph_store import CtxMemStore


@dataclass
class Caller:
    """Who talks."""

    user: str


class Turn(TypedDict):
    """One turn."""

    text: str
    answer: str


def talk(state: Turn, runtime: Runtime[Caller]) -> dict:
    memories = (runtime.context.user, "memories")
    if state["text"].startswith("I like "):
        runtime.store.put(memories, "drink", {"kind": "liking", "what": state["text"].removeprefix("I like ")})
        return {"answer": "Noted."}
    found = runtime.store.search(memories, filter={"kind": "liking"})
    return {"answer": ", ".join(item.value["what"] for item in found) or "nothing known"}


manager = ContextManager("sqlite://")
builder = StateGraph(Turn, context_schema=Caller).add_node("talk", talk).add_edge(START, "talk").add_edge("talk", END)
graph = builder.compile(store=CtxMemStore(manager))

graph.invoke({"text": "I like tea"}, context=Caller("alice"))
for user in ("alice", "bob"):
    print(f"{user} likes:", graph.invoke({"text": "What do I like?"}, context=Caller(user))["answer"])
manager.close()
