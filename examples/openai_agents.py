"""An agent of OpenAI's Agents SDK whose model calls never go over their budget, while its session keeps every item.

Runs offline: a scripted model stands for yours. python examples/openai_agents.py
"""

import asyncio

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, set_tracing_disabled
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from ctxmem import ContextManager
from ctxmem.agents.openai_agents import CtxMemInputFilter, CtxMemSession


class Scripted(Model):
    """Stands for a model: says how many items it was sent."""

    async def get_response(self, system_instructions, input, *args, **options):
        text = ResponseOutputText(text=f"I was sent {len(input)} items.", type="output_text", annotations=[])
        said = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
        return ModelResponse(output=[said], usage=Usage(), response_id=None)

    def stream_response(self, *args, **options):
        raise NotImplementedError


async def main() -> None:
    set_tracing_disabled(True)
    manager = ContextManager("sqlite://")
    agent = Agent("Diary", model=Scripted())
    session = CtxMemSession("chat-42", manager=manager)
    config = RunConfig(call_model_input_filter=CtxMemInputFilter(manager, budget=256, session="chat-42"))

    for day in range(1, 16):
        text = f"Day {day}: today I walked {day} km along the coast and saw {2 * day} ships."
        done = await Runner.run(agent, text, session=session, run_config=config)

    for request in manager.engine.store.requests("default", session_id="chat-42")[-3:]:
        print(f"{request.tokens} of {request.limit} tokens")
    print(done.final_output)
    items = await session.get_items()
    print(f"the session keeps {len(items)} items; the first: {items[0]['content']}")
    manager.close()


asyncio.run(main())
