"""LangChain's own context middleware with ctxmem's pieces: no model writes the summaries, tool results grow short.

Runs offline. python examples/langchain_edits.py
"""

from langchain.agents import create_agent
from langchain.agents.middleware import ContextEditingMiddleware, SummarizationMiddleware
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately

from ctxmem.agents.langchain_edits import CtxMemContextEdit, CtxMemSummarizer

LOG = " ".join(f"At {hour}:00 the pump ran at {hour * 7} litres and all was well." for hour in range(24))

model = FakeListChatModel(responses=["Noted."])
summaries = SummarizationMiddleware(
    model,
    trigger=("messages", 6),
    keep=("messages", 2),
    summarizer=CtxMemSummarizer(tokens=100),
    trim_tokens_to_summarize=None,
)
agent = create_agent(model, [], middleware=[summaries, ContextEditingMiddleware(edits=[CtxMemContextEdit()])])
said = [HumanMessage("My name is Zebedee Smith.")]
said += [message for day in range(3) for message in (AIMessage(LOG), HumanMessage(f"And on day {day}?"))]
state = agent.invoke({"messages": said})
print(" ".join(state["messages"][0].text.split()))

messages = [
    HumanMessage("Which hour was odd?"),
    *(
        message
        for day in ("1", "2")
        for message in (
            AIMessage("", tool_calls=[{"name": "log", "args": {"day": day}, "id": day}]),
            ToolMessage(LOG, tool_call_id=day),
        )
    ),
]
CtxMemContextEdit(trigger=100, keep=1).apply(messages, count_tokens=count_tokens_approximately)
print("old result:", len(messages[2].text), "characters")
print("new result:", len(messages[4].text), "characters")
