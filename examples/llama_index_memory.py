"""LlamaIndex's Memory with a block over ctxmem: what left the window long ago comes back when it is asked for.

Runs offline. python examples/llama_index_memory.py
"""

import asyncio

from llama_index.core.llms import ChatMessage
from llama_index.core.memory import Memory

from ctxmem import ContextManager
from ctxmem.agents.llama_index import CtxMemBlock


async def main() -> None:
    manager = ContextManager("sqlite://")
    block = CtxMemBlock(manager=manager, user="alice", top_k=1)
    memory = Memory.from_defaults(
        session_id="chat-42", memory_blocks=[block], token_limit=120, token_flush_size=20, tokenizer_fn=str.split
    )
    await memory.aput(ChatMessage(role="user", content="I live in Lisbon."))
    for day in range(1, 16):
        text = f"Day {day}: today I walked {day} km along the coast and saw {2 * day} ships."
        await memory.aput(ChatMessage(role="user", content=text))
    await memory.aput(ChatMessage(role="user", content="Where do I live?"))
    given = await memory.aget()
    print(f"{len(given)} of 17 messages given, and this memory:")
    print(next(line for line in str(given[0].content).splitlines() if "Lisbon" in line))
    manager.close()


asyncio.run(main())
