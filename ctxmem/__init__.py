"""ctxmem: a context manager between applications and LLMs.

`ContextManager` keeps sessions whole and builds each call's context under an exact token budget; `wrap` puts it under
an OpenAI or Anthropic client. Its stateless helpers are `compress`, `compress_prompt`, `count_tokens`, `rerank`,
`scorer_pool` and `compressed_lm`. Importing this package loads nothing but the standard library.
"""

from ctxmem.agents.wrap import wrap
from ctxmem.manager import Appended, Call, ContextManager, Prepared, Replay, SessionView
from ctxmem.stateless import (
    compress,
    compress_prompt,
    compressed_lm,
    count_tokens,
    rerank,
    scorer_pool,
    selective_context,
)
from ctxmem.types import Budget, Decision, Item, Message, Part, Receipt, Segment

__version__ = "0.1.0"

__all__ = [
    "Appended",
    "Budget",
    "Call",
    "ContextManager",
    "Decision",
    "Item",
    "Message",
    "Part",
    "Prepared",
    "Receipt",
    "Replay",
    "Segment",
    "SessionView",
    "compress",
    "compress_prompt",
    "compressed_lm",
    "count_tokens",
    "rerank",
    "scorer_pool",
    "selective_context",
    "wrap",
]
