"""Ports: what the core needs from the outside. Adapters implement them; `service.wiring` or the user joins the two."""

from ctxmem.ports.cache import Cache
from ctxmem.ports.checkpoints import Checkpoints
from ctxmem.ports.documents import DocumentStore
from ctxmem.ports.folders import Change, Folder, Folders
from ctxmem.ports.index import HotTier, Index, Keeping, Lookahead, Match
from ctxmem.ports.jobs import Jobs
from ctxmem.ports.memories import MemoryStore
from ctxmem.ports.models import (
    Complete,
    Counter,
    Embedder,
    Remembering,
    Reranker,
    Scorer,
    Scoring,
    SteppedScorer,
    TokenScores,
    in_time,
    reranker_of,
)
from ctxmem.ports.slots import SlotName, SlotStore
from ctxmem.ports.store import Store

__all__ = [
    "Cache",
    "Change",
    "Checkpoints",
    "Complete",
    "Counter",
    "DocumentStore",
    "Embedder",
    "Folder",
    "Folders",
    "HotTier",
    "Index",
    "Jobs",
    "Keeping",
    "Lookahead",
    "Match",
    "MemoryStore",
    "Remembering",
    "Reranker",
    "Scorer",
    "Scoring",
    "SlotName",
    "SlotStore",
    "SteppedScorer",
    "Store",
    "TokenScores",
    "in_time",
    "reranker_of",
]
