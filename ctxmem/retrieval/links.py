"""Following names from passage to passage: what a good candidate names by its heading is read right after it.

A question of two hops ("which office had the woman who played Corliss Archer?") says little of its second passage; the
first one names it. Such links were followed over Wikipedia by Asai et al., "Learning to Retrieve Reasoning Paths"
(ICLR 2020); here a link is a heading said word for word in another candidate, so that any titled documents have them:
encyclopaedias, handbooks, code by its definitions. Nothing is trained, and no candidate passes the one that names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ctxmem.headings import folded, name
from ctxmem.ports import Match
from ctxmem.retrieval.fuse import standardised

SOURCES = 5
"""Candidates whose words are followed: the best."""
GAIN = 3.0
"""Most that a named candidate gains, in deviations of the scores; `bench/retrieval.py` chose it on training queries."""
_SHARED = 3
"""A name gains half as much when so many candidates say it."""
_APART = 1e-6


def names(lead: str) -> frozenset[str]:
    """What a passage goes by: of each line of its lead, the innermost heading, folded; none that reads like speech.

    Args:
        lead: lines of headings, those of one line joined by " > ", as in `Chunk.lead`.
    """
    last = (line.rpartition(" > ")[2] for line in lead.splitlines() if not line.startswith("["))
    return frozenset(filter(None, map(name, last)))


def followed(ranked: Sequence[Match], texts: Mapping[str, str], known: Mapping[str, Collection[str]]) -> list[Match]:
    """The candidates, those that better ones name brought up behind them; scores are standardised.

    Args:
        ranked: candidates with scores.
        texts: by candidate, its words.
        known: by candidate, the names it goes by, as `names` gives them.
    """
    scores = standardised({match.id: match.score for match in ranked})
    order = sorted(scores, key=lambda id: (-scores[id], id))
    place = {id: at for at, id in enumerate(order)}
    words = {id: folded(texts.get(id, "")) for id in order}
    risen = dict(scores)
    for heading, target in _bearers(order, known).items():
        saying = [id for id in order if f" {heading} " in words[id] and heading not in known.get(id, ())]
        first = next((id for id in saying if place[id] < min(SOURCES, place[target])), None)
        if first is not None:
            gained = scores[target] + GAIN / (1 + len(saying) / _SHARED)
            behind = scores[first] - _APART * (1 + place[target])
            risen[target] = max(risen[target], min(gained, behind))
    return [Match(id, risen[id]) for id in sorted(order, key=lambda id: (-risen[id], id))]


def _bearers(order: Iterable[str], known: Mapping[str, Collection[str]]) -> dict[str, str]:
    """By name, the best candidate that goes by it."""
    found: dict[str, str] = {}
    for id in order:
        for heading in known.get(id, ()):
            found.setdefault(heading, id)
    return found
