"""Clusters that a hot tier holds: brought there by lookahead, scored there, and the others searched on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctxmem.ports import Match
from ctxmem.ports.index import Held, HotTier
from ctxmem.retrieval.flat import best
from ctxmem.retrieval.tiered.certify import Asked, Found, searched
from ctxmem.retrieval.tiered.codes import Floats
from ctxmem.retrieval.tiered.segment import Segment


def brought_up(segment: Segment, number: int, tier: HotTier) -> bool:
    """Hold a cluster in the tier; not one with a damaged vector, for which its code stands.

    Raises:
        StoreError: the disk cannot be read.
    """
    start, end = (int(place) for place in segment.starts[number : number + 2])
    if start == end:
        return False
    vectors, damaged = segment.rows(range(start, end))
    if damaged or not tier.hold(segment, number, start, vectors):
        return False
    if any(start <= row < end for row in tuple(segment.gone)):  # erased, perhaps since it was read
        tier.drop(segment)
        return False
    return True


def searched_with(
    tier: HotTier | None, segment: Segment, queries: Floats, asked: Sequence[Asked]
) -> tuple[list[Found], int]:
    """As `searched`; what the tier holds is scored there, which changes no result."""
    if tier is None or not asked:
        return searched(segment, asked)
    erased = len(segment.gone)
    lists, allowed = [one.lists for one in asked], asked[0].allowed
    there = tier.search(segment, queries, asked[0].k, lists, allowed)
    cold = [
        replace(one, lists=held.left, floor=float(held.scores.min()) if len(held.rows) >= one.k > 0 else -np.inf)
        for one, held in zip(asked, there, strict=True)
    ]
    found, read = searched(segment, cold)
    if len(segment.gone) > erased:  # what was erased meanwhile may have kept others out
        return searched(segment, asked)
    return [_joined(segment, *parts) for parts in zip(asked, there, found, strict=True)], read


def _joined(segment: Segment, asked: Asked, held: Held, found: Found) -> Found:
    """What was found in both places, and what that took."""
    matches, account = found
    hot = [Match(segment.ids[row], score) for row, score in zip(held.rows.tolist(), held.scores.tolist(), strict=True)]
    account.lists = len(asked.lists)
    if account.of:
        account.of += _size(segment, np.setdiff1d(asked.lists, held.left), asked.allowed)
    return best([*matches, *hot], asked.k), account


def _size(segment: Segment, lists: NDArray[np.int64], allowed: NDArray[np.bool_] | None) -> int:
    """Rows in some clusters that may be found."""
    spans = [slice(*segment.starts[number : number + 2].tolist()) for number in lists.tolist()]
    if allowed is None:
        return sum(span.stop - span.start for span in spans)
    return sum(int(allowed[span].sum()) for span in spans)
