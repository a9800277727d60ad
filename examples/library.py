"""The library without a service: prepare a context, answer it somehow, record the answer.

Runs offline and needs no model: python examples/library.py
"""

from ctxmem import ContextManager


def answer(messages: list[dict]) -> str:
    """Stands for a call of any model."""
    return f"I was sent {len(messages)} messages; the last one says: {messages[-1]['content']}"


manager = ContextManager("sqlite:///:memory:", model="smollm2")
session = "chat-42"

for day in range(1, 21):
    said = [{"role": "user", "content": f"Day {day}: today I walked {day} km along the coast and saw {2 * day} ships."}]
    plan = manager.prepare(session, said, budget=256)  # only what is new; the log has the rest
    manager.record(session, answer(plan.messages()))
    print(f"day {day}: {plan.receipt.tokens} of {plan.receipt.limit} tokens, {plan.receipt.action}")

left_out = [item for item in plan.receipt.items if item.decision != "kept"]
print(f"\n{len(left_out)} of {len(plan.receipt.items)} messages were shortened or left out; the first of them was:")
print(manager.restore(left_out[0].item_id)["content"])
manager.close()
