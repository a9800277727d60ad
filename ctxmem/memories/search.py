"""Search: words and meaning together, over what holds at the moment that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ctxmem.errors import InvalidInput, ModelError, Unavailable
from ctxmem.memories.asked import Found, Hit, Wanted
from ctxmem.memories.filters import compiled
from ctxmem.memories.likeness import Likeness
from ctxmem.memories.messages import together
from ctxmem.memories.shelf import Shelf, spoken, within
from ctxmem.memory import Memory, Scope
from ctxmem.ports import Reranker
from ctxmem.retrieval.fuse import IN_CHATS, read_again

DENSE = 0.6
"""Weight of meaning in a hybrid score; the rest is of words."""

ECHO = 0.7
"""Share of its score that an assistant's statement keeps: what was told is scarcer than what a model makes of it."""

MOST_COMPARED = 4_000
"""Memories whose meaning is compared: the best by words, then the newest."""

MOST_RERANKED = 50
"""Candidates that a reranker reads."""


def search(shelf: Shelf, query: str, who: Scope, wanted: Wanted, *, now: float, likeness: Likeness | None) -> Found:
    """The memories that answer a query, best first.

    Without likeness, or while it is out of reach, words alone decide.

    Args:
        shelf: where to look.
        query: what is asked.
        who: whose memories.
        wanted: how to search.
        now: seconds since 1970.
        likeness: compares meanings; None for none.
    """
    passes = compiled(wanted.filters)
    with shelf.lock:
        open_to = {
            memory.id: memory
            for memory in shelf.memories.values()
            if within(memory, who) and memory.holds(wanted.as_of, now) and passes(memory)
        }
        lexical = shelf.lexicon.scores(query, open_to)
    dense = _dense(query, open_to, lexical, likeness)
    if dense is None:
        hits = [_hit(open_to[id], score, {"lexical": score}) for id, score in lexical.items()]
    else:
        hits = [_mixed(open_to[id], lexical.get(id, 0.0), alike) for id, alike in dense.items()]
    hits = together(hits, open_to) if wanted.whole else hits
    hits = sorted((hit for hit in hits if hit.score >= wanted.threshold), key=lambda hit: (-hit.score, hit.memory.id))
    room = max(wanted.top_k, MOST_RERANKED) if wanted.rerank else wanted.top_k
    return Found(tuple(hits[:room]), "lexical" if dense is None else "hybrid")


def reranked(found: Found, query: str, top_k: int, reranker: Reranker | None) -> Found:
    """The best of what was found by the reranker's scores and those before; as they are while it is out of reach.

    Raises:
        InvalidInput: no reranker is set.
    """
    if reranker is None:
        raise InvalidInput("no reranker is set", param="rerank")
    hits = found.hits[:MOST_RERANKED]
    try:
        scores = reranker.score(query, [spoken(hit.memory, hit.text) for hit in hits])
    except (Unavailable, ModelError):
        return replace(found, hits=found.hits[:top_k])
    by_id = {hit.memory.id: hit for hit in hits}
    read = dict(zip(by_id, scores, strict=True))
    fused = read_again({id: hit.score for id, hit in by_id.items()}, scores, top_k, weight=IN_CHATS)
    told = ((by_id[match.id], match.score) for match in fused)
    best = (replace(hit, score=score, why={**hit.why, "rerank": read[hit.memory.id]}) for hit, score in told)
    return Found(tuple(best), f"{found.by}+rerank")


def _dense(
    query: str, open_to: dict[str, Memory], lexical: dict[str, float], likeness: Likeness | None
) -> dict[str, float] | None:
    """How alike each memory and the query are, by id; None when nobody can say."""
    if likeness is None or not open_to:
        return None
    best = sorted(lexical, key=lambda id: -lexical[id])
    newest = sorted(open_to, reverse=True)
    ids = list(dict.fromkeys([*best, *newest]))[:MOST_COMPARED]
    try:
        alike = likeness(query, [spoken(open_to[id]) for id in ids])
    except (Unavailable, ModelError):
        return None
    return dict(zip(ids, alike, strict=True))


def _mixed(memory: Memory, lexical: float, dense: float) -> Hit:
    alike = max(0.0, min(1.0, float(dense)))
    return _hit(memory, (1 - DENSE) * lexical + DENSE * alike, {"lexical": lexical, "dense": alike})


def _hit(memory: Memory, score: float, why: Mapping[str, float]) -> Hit:
    return Hit(memory, score * (ECHO if memory.speaker == "assistant" else 1.0), why)
