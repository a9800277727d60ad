"""An official OpenAI client through ctxmem: nothing changes but the base URL.

Start the service with `ctxmem serve`, export the two lines it prints, then: python examples/openai_client.py
"""

from openai import OpenAI

client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY

history = [{"role": "system", "content": "Answer in one short sentence."}]
for question in ("My name is Ann and I like old ships. Who are you?", "What is my name?"):
    history.append({"role": "user", "content": question})
    answer = client.chat.completions.with_raw_response.create(
        model="smollm2-135m-instruct",
        messages=history,
        max_tokens=32,
        extra_headers={"x-ctxmem-session": "example", "x-ctxmem-budget": "512"},  # both are optional
    )
    reply = answer.parse().choices[0].message
    history.append({"role": "assistant", "content": reply.content})
    print(f"> {question}\n{reply.content}")
    print(f"  tokens in;sent: {answer.headers['x-ctxmem-tokens']}, receipt {answer.headers['x-ctxmem-request-id']}")
