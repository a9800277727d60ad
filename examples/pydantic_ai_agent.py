"""A PydanticAI agent whose model requests never go over their budget, while its conversation keeps every message.

Runs offline: a function stands for the model. python examples/pydantic_ai_agent.py
"""

import asyncio

from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from ctxmem import ContextManager
from ctxmem.agents.pydantic_ai import CtxMemCapability
from ctxmem.agents.pydantic_ai_store import CtxMemConversationStore


def scripted(messages, info):
    """Stands for a model: says how many messages it was sent."""
    return ModelResponse(parts=[TextPart(f"I was sent {len(messages)} messages.")])


async def main() -> None:
    manager = ContextManager("sqlite://")
    store = CtxMemConversationStore(manager=manager, user="alice")
    agent = Agent(FunctionModel(scripted), capabilities=[CtxMemCapability(manager, budget=256, session="chat-42")])

    for day in range(1, 16):
        talk = await store.load("chat-42") or Conversation(conversation_id="chat-42")
        text = f"Day {day}: today I walked {day} km along the coast and saw {2 * day} ships."
        done = await agent.run(text, conversation=talk)
        await store.save(done)

    for request in manager.engine.store.requests("default", session_id="chat-42")[-3:]:
        print(f"{request.tokens} of {request.limit} tokens")
    print(done.output)
    kept = (await store.load("chat-42")).messages
    print(f"the conversation keeps {len(kept)} messages; the first: {kept[0].parts[0].content}")
    manager.close()


asyncio.run(main())
