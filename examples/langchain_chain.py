"""A chain whose context fits, over documents that are found again: retriever, context and memory tools.

Runs offline. python examples/langchain_chain.py
"""

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

from ctxmem import ContextManager
from ctxmem.agents.langchain_context import CtxMemContext, memory_tools
from ctxmem.agents.langchain_documents import CtxMemRetriever
from ctxmem.agents.langchain_models import CtxMemEmbeddings, token_counter
from ctxmem.agents.langchain_vectors import CtxMemVectorStore
from ctxmem.retrieval.library import Library, Source

manager = ContextManager("sqlite://")

store = CtxMemVectorStore(CtxMemEmbeddings(), manager=manager)
store.add_texts(["The harbour tram leaves at nine.", "Rye bread is sold behind the mill."], ids=["tram", "bread"])
print("like the question:", store.similarity_search("when does the streetcar go?", k=1)[0].id)

library = Library(manager.engine.store.documents, None)
library.ingest(manager.tenant, "handbook", [Source("# Keys\n\nLost keys are reset at the desk.", name="handbook.md")])
retriever = CtxMemRetriever(library=library, tenant=manager.tenant, namespace="handbook", mode="words", k=1)
piece = retriever.invoke("where are keys reset?")[0]
print("found in", piece.metadata["ctxmem"]["document_id"], "->", piece.page_content.splitlines()[-1])

model = GenericFakeChatModel(messages=iter([AIMessage("At the desk.")]))
prompt = ChatPromptTemplate.from_messages([("system", "Answer from: {found}"), MessagesPlaceholder("said")])
context = CtxMemContext(manager=manager, budget=300, session="alice", policy="none")
said = [
    message
    for day in range(30)
    for message in (HumanMessage(f"Day {day}: I walked along the coast and saw ships."), AIMessage("Noted."))
]
asked = {"found": piece.page_content, "said": [*said, HumanMessage("Where are keys reset?")]}
sent = (prompt | context).invoke(asked)
print(f"{len(said) + 2} messages, {len(sent)} sent, {token_counter()(sent)} tokens")
print("answer:", (prompt | context | model).invoke(asked).content)

tools = {tool.name: tool for tool in memory_tools(manager, "alice")}
tools["add_memory"].invoke({"text": "Alice keeps her keys on a red ribbon."})
print("remembered:", tools["search_memory"].invoke({"query": "where are Alice's keys?"})["results"][0]["memory"])
