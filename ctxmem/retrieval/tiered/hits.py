"""What a search of the index on disk gives, and how that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ctxmem.ports import Match

Mode = Literal["certified", "scan", "superset"]
"""Which clusters a search looks into: the nearest ones; all; the nearest and those that its ticket brought in."""
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search found.

    Attributes:
        matches: best first; equal scores by id.
        exact: whether they are proved to be the best of the clusters searched; of all there is where `whole` is true.
        whole: whether every cluster was searched that holds anything that may be found.
        coverage: share of what may be found in those clusters that was read, or proved not to be among the best.
        degraded: what was missing: `rows` when a vector on disk is damaged, `deadline` when time ran out. Scores are
            then those of codes where vectors were not read.
        rows_read: vectors read from disk; of a batch, those that this search looked at.
        lists: clusters searched.
        fetched: of the nearest clusters, how many a ticket had brought in before.
    """

    matches: list[Match]
    exact: bool = True
    whole: bool = True
    coverage: float = 1.0
    degraded: str = ""
    rows_read: int = 0
    lists: int = 0
    fetched: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What several searches found together.

    Attributes:
        hits: of each search.
        lists: clusters that any of them searched.
        rows_read: vectors read from disk, each once for all.
    """

    hits: list[Hits]
    lists: int = 0
    rows_read: int = 0
