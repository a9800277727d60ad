"""A streamed answer through ctxmem, and the receipt of what was sent for it.

Start the service with `ctxmem serve`, export the two lines it prints, then: python examples/streaming.py
"""

from openai import OpenAI

client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY

with client.chat.completions.with_streaming_response.create(
    model="smollm2-135m-instruct",
    messages=[{"role": "user", "content": "Name three kinds of ships."}],
    max_tokens=48,
    stream=True,
) as response:
    for chunk in response.parse():
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
    request_id = response.headers["x-ctxmem-request-id"]

receipt = client.get(f"/requests/{request_id}", cast_to=dict[str, object])
print(f"\n{request_id}: {receipt['action']}, {receipt['budget']}")
