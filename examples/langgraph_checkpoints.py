"""A graph that stops at a question, and goes on from its checkpoint after the database was closed.

Runs offline. python examples/langgraph_checkpoints.py
"""

import tempfile
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from ctxmem import ContextManager
from ctxmem.agents.langgraph_saver import CtxMemSaver


class Order(TypedDict):
    """What the graph knows of an order."""

    crates: int
    result: str


def send(order):
    town = interrupt(f"Send {order['crates']} crates to Porto?")
    return {"result": f"{order['crates']} crates to {town}"}


builder = StateGraph(Order).add_node("send", send).add_edge(START, "send").add_edge("send", END)
thread = {"configurable": {"thread_id": "order-7", "user_id": "alice"}}

with tempfile.TemporaryDirectory() as folder:
    manager = ContextManager(f"sqlite:///{folder}/agent.db")
    stopped = builder.compile(checkpointer=CtxMemSaver(manager)).invoke({"crates": 3, "result": ""}, thread)
    print("asked:", stopped["__interrupt__"][0].value)
    manager.close()

    manager = ContextManager(f"sqlite:///{folder}/agent.db")
    saver = CtxMemSaver(manager)
    print("sent:", builder.compile(checkpointer=saver).invoke(Command(resume="Porto"), thread)["result"])
    manager.erase_user("alice")
    print("left of alice:", saver.get_tuple(thread))
    manager.close()
