"""A LangChain agent whose model calls never go over their budget, while its graph keeps every message.

Runs offline: a scripted model stands for yours. python examples/langchain_agent.py
"""

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langgraph.checkpoint.memory import InMemorySaver

from ctxmem import ContextManager
from ctxmem.agents.langgraph import CtxMemMiddleware

manager = ContextManager("sqlite://")
middleware = CtxMemMiddleware(manager, budget=256)
model = FakeListChatModel(responses=["Noted."])
agent = create_agent(model, [], middleware=[middleware], checkpointer=InMemorySaver())
thread = {"configurable": {"thread_id": "chat-42"}}

for day in range(1, 16):
    text = f"Day {day}: today I walked {day} km along the coast and saw {2 * day} ships."
    state = agent.invoke({"messages": [{"role": "user", "content": text}]}, thread)

for request in manager.engine.store.requests("default", session_id="chat-42")[-3:]:
    items = manager.receipt(request.id).items
    sent = sum(item.decision == "kept" for item in items)
    print(f"{request.tokens} of {request.limit} tokens: {sent} of {len(items)} messages sent")
print(f"the graph keeps {len(state['messages'])} messages; the first: {state['messages'][0].content}")
manager.close()
