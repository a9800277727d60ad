"""Helpers that keep nothing: count tokens, compress a text once, rerank texts, a local model with a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxmem import chat
from ctxmem.errors import ModelError
from ctxmem.manager.engine import scorer_named
from ctxmem.ports import Counter, Scorer
from ctxmem.types import Message

if TYPE_CHECKING:
    from ctxmem.compressors.outcome import Compressed
    from ctxmem.compressors.units import UnitName
    from ctxmem.lm.ccm.compressed import CompressedLM
    from ctxmem.lm.rerank.reranker import Ranking, Reranker

Source = str | Sequence[Mapping[str, Any] | Message]
"""A text, or messages in the OpenAI chat shape."""


def count_tokens(source: Source, *, model: str = "", tools: Sequence[Mapping[str, Any]] | None = None) -> int:
    """Tokens of a text alone, or of the request that messages and tools make with the model's chat template.

    Args:
        source: what to count.
        model: an OpenAI model, `hf:<id or path>`, or a packaged model such as `smollm2`. Another name, or none, gives
            a conservative estimate.
        tools: tools of the request.

    Raises:
        InvalidInput: a message is wrong.
        ModelError: the tokenizer that was asked for is missing.
    """
    counter = _counter(model)
    if isinstance(source, str):
        return counter.texts([source])[0]
    return counter.request(chat.parse_all(source), chat.dump_all(tools) if tools else None)


def compress(
    source: Source,
    *,
    budget: int | None = None,
    ratio: float | None = None,
    unit: UnitName = "phrase",
    model: str = "",
    scorer: str | Scorer = "lexical",
) -> Compressed:
    """Shorten a text, or the messages that may be shortened, to a budget or a share of its tokens.

    Args:
        source: what to shorten.
        budget: tokens allowed; give either this or `ratio`.
        ratio: share of the tokens to keep, in (0, 1].
        unit: what is kept or dropped whole: `phrase`, `sentence` or `block`.
        model: whose tokens are counted, as in `count_tokens`.
        scorer: `lexical`, a scorer, or a language model by packaged name, path or hub id.

    Raises:
        InvalidInput: the source or a number is wrong.
        ModelError: a model that was asked for is missing.
    """
    from ctxmem.compressors.compress import compress as shorten

    chosen = scorer_named(scorer) if isinstance(scorer, str) else scorer
    text_or_messages = source if isinstance(source, str) else chat.parse_all(source)
    return shorten(text_or_messages, budget=budget, ratio=ratio, counter=_counter(model), scorer=chosen, unit=unit)


def _counter(model: str) -> Counter:
    from ctxmem.tokens.resolve import counter_for

    return counter_for(model)


def rerank(query: str, texts: Sequence[str], *, k: int | None = None, model: str = "minilm-interaction") -> Ranking:
    """The texts that answer a query best, in order, with their scores.

    Args:
        query: what is asked.
        texts: candidates; an empty one ranks last.
        k: how many are wanted; all when None.
        model: the shipped reranker, a packaged model, a folder or a hub id.

    Raises:
        InvalidInput: the query or a text is no text, or k is below 1.
        ModelError: the model is missing; the message says what to install.
    """
    return _reranker(model).rank(query, texts, k=k)


@lru_cache(maxsize=2)
def _reranker(model: str) -> Reranker:
    from ctxmem.lm.rerank.reranker import Reranker

    return Reranker.load(model)


def compressed_lm(model: str = "smollm2", *, adapter: Path | None = None, threads: int = 1) -> CompressedLM:
    """A local chat model whose past is a compressed memory.

    Args:
        model: a packaged model, a folder or a hub id.
        adapter: a folder that `ctxmem train ccm` wrote; the shipped one by default.
        threads: torch threads of this whole process.

    Raises:
        ModelError: the model, its adapter, or what they run on is missing.
    """
    try:
        from ctxmem.lm.ccm.compressed import ADAPTER, CompressedLM
    except ImportError as error:
        raise ModelError('compressed memory needs torch and transformers: pip install "ctxmem[models]"') from error
    _counter(model)  # writes a packaged model's tokenizer
    return CompressedLM.load(model, adapter=adapter or ADAPTER, threads=threads)
