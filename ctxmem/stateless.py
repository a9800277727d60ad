"""Helpers that keep nothing: count tokens, compress a text once, rerank texts, a local model with a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from ctxmem import chat
from ctxmem.errors import InvalidInput, ModelError
from ctxmem.manager.engine import scorer_named
from ctxmem.ports import Counter, Scorer
from ctxmem.types import Message

if TYPE_CHECKING:
    from ctxmem.compressors.budgets import Spend
    from ctxmem.compressors.compress import Compressor
    from ctxmem.compressors.outcome import Compressed
    from ctxmem.compressors.paper import Published
    from ctxmem.compressors.units import UnitName
    from ctxmem.compressors.watched import Progress
    from ctxmem.lm.ccm.compressed import CompressedLM
    from ctxmem.lm.pool import ScorerPool
    from ctxmem.lm.rerank.reranker import Ranking, Reranker
    from ctxmem.ports import Embedder

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


class Asked(TypedDict, total=False):
    """How to compress; all of it optional, but one of `budget` and `ratio`.

    Attributes:
        budget: tokens allowed, as a number or as `Tokens`, `Ratio` or `Quality` of `ctxmem.compressors.budgets`.
        ratio: share of the tokens to keep, in (0, 1].
        query: what will be asked; what has to do with it stays first.
        unit: what is kept or dropped whole: `phrase` (default), `sentence` or `block`.
        model: whose tokens are counted, as in `count_tokens`.
        scorer: `lexical` (default), a scorer, or a language model by packaged name, path or hub id.
        embedder: finds what has to do with the query in other words; None: words alone count.
        deadline: seconds that scoring may take; past it the lexical scorer decides.
        progress: told the share of the scoring that is done, from 0 to 1; what it raises ends the work.
    """

    budget: int | Spend | None
    ratio: float | None
    query: str
    unit: UnitName
    model: str
    scorer: str | Scorer
    embedder: Embedder | None
    deadline: float | None
    progress: Progress | None


def compress(source: Source, **how: Unpack[Asked]) -> Compressed:
    """Shorten a text, or the messages that may be shortened, to a budget or a share of its tokens.

    >>> compress("short", budget=10).reason
    'within_budget'

    Args:
        source: what to shorten.
        how: see `Asked`.

    Raises:
        InvalidInput: the source or a number is wrong.
        ModelError: a model that was asked for is missing.
        TypeError: an unknown option.
    """
    from ctxmem.compressors.budgets import spend

    if unknown := how.keys() - Asked.__annotations__.keys():
        raise TypeError(f"compress() got an unexpected keyword argument {min(unknown)!r}")
    query = how.get("query") or ""
    if not isinstance(query, str):
        raise InvalidInput(f"query must be text, got {type(query).__name__}", param="query")
    text_or_messages = source if isinstance(source, str) else chat.parse_all(source)
    return _compressor(how)(text_or_messages, spend(how.get("budget"), ratio=how.get("ratio")), query=query)


def _compressor(how: Asked) -> Compressor:
    from ctxmem.compressors.compress import Compressor
    from ctxmem.compressors.lexical import Lexical

    chosen, deadline = how.get("scorer", "lexical"), how.get("deadline")
    return Compressor(
        _counter(how.get("model", "")),
        scorer_named(chosen) if isinstance(chosen, str) else chosen,
        fallback=Lexical() if deadline is not None else None,
        embedder=how.get("embedder"),
        unit=how.get("unit", "phrase"),
        deadline=deadline,
        progress=how.get("progress"),
    )


def compress_prompt(
    context: str | Sequence[str],
    instruction: str = "",
    question: str = "",
    rate: float = 0.5,
    target_token: float = -1,
    **how: Unpack[Asked],
) -> dict[str, Any]:
    """Compress a prompt with LLMLingua's call and result: `PromptCompressor.compress_prompt`.

    The context is compressed with the question as its query; instruction and question stay as they are.

    Args:
        context: passages; they share the budget.
        instruction: goes before them.
        question: goes after them.
        rate: share of the whole prompt's tokens to keep, as in LLMLingua.
        target_token: tokens the context may take; rules over `rate` unless it is negative.
        how: `unit`, `model`, `scorer`, `embedder`, `deadline` and `progress` of `Asked`.

    Returns:
        LLMLingua's keys: compressed_prompt, origin_tokens, compressed_tokens, ratio (`"2.0x"`), rate (`"50.0%"`) and
        saving, here in tokens; and `reason`, why the context stayed as it was, empty when it did not.

    Raises:
        InvalidInput: a rate out of range, or something that is no text.
    """
    from ctxmem.compressors.prompting import Prompt

    return Prompt(context, instruction, question).compressed(_compressor(how), rate=rate, target_token=target_token)


def selective_context(model_type: str = "smollm2", lang: str = "en") -> Published:
    """The published Selective Context with its package's call: `selective_context()(text, reduce_ratio=0.35)`.

    For comparison and for those who come from it; `compress` keeps more at the same number of tokens.

    Args:
        model_type: `lexical`, or a language model by packaged name, path or hub id.
        lang: `en` or `zh`, as the package has it; both are cut alike.

    Raises:
        InvalidInput: another language.
        ModelError: the model is missing.
    """
    from ctxmem.compressors.paper import Published

    if lang not in ("en", "zh"):
        raise InvalidInput(f"lang must be en or zh, got {lang!r}", param="lang")
    return Published(scorer_named(model_type))


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


def scorer_pool(model: str = "smollm2", *, processes: int | None = None) -> ScorerPool:
    """A scorer in several processes of one torch thread each: `compress(text, scorer=pool)`, for long texts and many.

    Close it, or use it in a `with` block. As with all processes of Python's that are spawned, a program's main module
    must do nothing on import: start it under `if __name__ == "__main__"`.

    Args:
        model: a packaged model, a folder or a hub id.
        processes: how many, each of which holds the model; one per core by default.

    Raises:
        InvalidInput: there is to be no process.
        ModelError: the model, or what it runs on, is missing.
    """
    try:
        from ctxmem.lm.pool import ScorerPool
    except ImportError as error:
        raise ModelError('a scorer pool needs torch and transformers: pip install "ctxmem[models]"') from error
    _counter(model)  # writes a packaged model's tokenizer
    return ScorerPool(model, processes=processes)


def compressed_lm(model: str = "smollm2", *, adapter: str | Path | None = None, threads: int = 1) -> CompressedLM:
    """A local chat model whose past is a compressed memory.

    Args:
        model: a packaged model, a folder or a hub id.
        adapter: a folder that `ctxmem train ccm` wrote, or a hub id; the shipped one by default.
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
