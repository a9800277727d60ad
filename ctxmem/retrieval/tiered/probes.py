"""Which clusters searches look into, by their mode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctxmem.retrieval.tiered.codes import Floats
from ctxmem.retrieval.tiered.hits import Mode
from ctxmem.retrieval.tiered.lookahead import Ticket
from ctxmem.retrieval.tiered.segment import Segment


@dataclass(frozen=True, slots=True)
class Probe:
    """What one search looks into.

    Attributes:
        lists: clusters, nearest first.
        fetched: how many of them a ticket brought in.
        whole: whether no other cluster holds anything that may be found.
    """

    lists: NDArray[np.int64]
    fetched: int
    whole: bool


def probed(
    segment: Segment, queries: Floats, count: int, *, mode: Mode, only: NDArray[np.bool_] | None, ticket: Ticket | None
) -> list[Probe]:
    """What the search of each of (queries, dimensions) vectors looks into; the ticket ends with it.

    Args:
        segment: where.
        queries: what is looked for.
        count: nearest clusters to look into.
        mode: see `TieredIndex.find`.
        only: (rows,) the few that may be found, wherever they are; None where clusters are chosen by `mode`.
        ticket: of a lookahead.
    """
    brought = ticket.brought(segment) if ticket is not None else []
    holding = None if only is None else segment.clusters(np.flatnonzero(only))
    near = segment.manifest.lists if mode == "scan" or only is not None else count
    found = []
    for query in queries:
        lists = segment.nearest(query, near)
        if holding is not None:
            lists = lists[np.isin(lists, holding)]
        elif mode == "superset":
            lists = np.concatenate((lists, np.setdiff1d(brought, lists).astype(np.int64)))
        whole = holding is not None or len(lists) == segment.manifest.lists
        found.append(Probe(lists, int(np.isin(lists, brought).sum()) if brought else 0, whole))
    if ticket is not None:
        ticket.used(segment, {number for probe in found for number in probe.lists.tolist()})
    return found
