"""A wrapped OpenAI client: used as before, never over its budget, and nothing is lost.

Runs offline: a function stands for the model's server. python examples/wrapped_client.py
"""

import json

import httpx2
from openai import OpenAI

from ctxmem import ContextManager, wrap


def server(request: httpx2.Request) -> httpx2.Response:
    """Stands for the model's server: says how many messages it was sent."""
    said = f"I was sent {len(json.loads(request.content)['messages'])} messages."
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    return httpx2.Response(
        200, json={"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    )


bare = OpenAI(api_key="none", http_client=httpx2.Client(transport=httpx2.MockTransport(server)))
manager = ContextManager("sqlite://")
client = wrap(bare, manager, session="chat-42", budget=256)

for day in range(1, 16):
    said = [{"role": "user", "content": f"Day {day}: today I walked {day} km along the coast and saw {2 * day} ships."}]
    answer = client.chat.completions.with_raw_response.create(model="m", messages=said)
    receipt = manager.receipt(answer.headers["x-ctxmem-request-id"])
    print(f"day {day}: {receipt.tokens} of {receipt.limit} tokens; {answer.parse().choices[0].message.content}")

left_out = [item for item in receipt.items if item.decision == "dropped"]
print(f"\n{len(left_out)} of {len(receipt.items)} messages were left out; the first of them was:")
print(manager.restore(left_out[0].item_id)["content"])
manager.close()
