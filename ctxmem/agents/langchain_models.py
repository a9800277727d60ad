"""ctxmem's small models as LangChain's: sentence vectors, a cross-encoder, and a token counter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

try:
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.embeddings import Embeddings
    from langchain_core.messages import BaseMessage
except ImportError as error:
    raise ImportError('ctxmem.agents.langchain_models needs langchain-core: pip install "ctxmem[langchain]"') from error

from ctxmem.agents.langchain_messages import to_chat
from ctxmem.ports import Embedder, Reranker
from ctxmem.tokens.resolve import counter_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CtxMemEmbeddings(Embeddings):
    """Sentence vectors of a local encoder."""

    def __init__(self, model: str = "minilm", *, embedder: Embedder | None = None) -> None:
        """Load the encoder.

        Args:
            model: a packaged name, a folder or a hub id.
            embedder: use this one instead.

        Raises:
            ModelError: it is not there, or not an encoder; says what to install.
        """
        if embedder is None:
            from ctxmem.lm.encoder import embedder_named

            embedder = embedder_named(model)
        self.embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector per text, L2-normalised, as Python's floats."""
        return _floats(self.embedder.embed(texts)) if texts else []

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return _floats(self.embedder.embed([text], query=True))[0]


class CtxMemCrossEncoder(BaseCrossEncoder):
    """The shipped reranker, for `CrossEncoderReranker(model=CtxMemCrossEncoder())`."""

    def __init__(self, reranker: Reranker | None = None) -> None:
        """Take a reranker; the shipped one by default.

        Raises:
            ModelError: its weights are missing or damaged.
        """
        if reranker is None:
            from ctxmem.lm.rerank.reranker import Reranker as Shipped

            reranker = Shipped.load("minilm-interaction")
        self.reranker = reranker

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """A score per (query, text); higher is better, comparable between texts of one query."""
        by_query: dict[str, list[int]] = {}
        for at, (query, _) in enumerate(text_pairs):
            by_query.setdefault(query, []).append(at)
        scores = [0.0] * len(text_pairs)
        for query, places in by_query.items():
            for at, score in zip(places, self.reranker.score(query, [text_pairs[at][1] for at in places]), strict=True):
                scores[at] = score
        return scores


def token_counter(model: str = "") -> Callable[[Sequence[BaseMessage] | BaseMessage], int]:
    """Exact tokens of messages for `trim_messages(..., token_counter=token_counter("smollm2"))`.

    Args:
        model: target model, whose tokenizer and chat template count; an upper estimate where they are not known.
    """
    counter = counter_for(model)

    def count(messages: Sequence[BaseMessage] | BaseMessage) -> int:
        given = [messages] if isinstance(messages, BaseMessage) else list(messages)
        return sum(counter.messages([to_chat(message) for message in given]))

    return count


def _floats(vectors: NDArray[np.float32]) -> list[list[float]]:
    found: list[list[float]] = vectors.tolist()
    return found
