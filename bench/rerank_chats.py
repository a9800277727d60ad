"""Chats, meetings and conversations over passages, as sets that the reranker learns from; see `bench.rerank_sets`.

None of them is in the table of `bench.retrieval`: its chats are LoCoMo's, which are measured only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.remembering.sets import Chat
from bench.remembering.sets import beam as beam_chats
from bench.rerank_sets import RankingSet, lines, load

WINDOW = 150
"""Words of a meeting in one document."""


def beam(root: Path) -> RankingSet:
    """Turns of BEAM's 100K chats with the date and the turn before; each question ranks its own chat's."""
    made = RankingSet("beam", {}, {}, {})
    for chat in beam_chats(root):
        own = _turns(chat)
        made.docs |= own
        for place, question in enumerate(chat.questions):
            key = f"{chat.name}.{place}"
            made.queries[key], made.pool[key] = question.text, list(own)
            made.gold[key] = {f"{chat.name}/{one}": 1.0 for one in question.evidence}
    return made


def qmsum(root: Path) -> RankingSet:
    """Stretches of meetings; right are those that lie in the span a question is about, at least by half."""
    made = RankingSet("qmsum", {}, {}, {})
    for number, meeting in enumerate(lines(root / "qmsum/open/qmsum_val.jsonl")):
        said = [f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"]]
        cut = list(_stretches(said))
        own = {f"{number}/{first}": " ".join(said[first:stop]) for first, stop in cut}
        made.docs |= own
        for place, row in enumerate(meeting["specific_query_list"]):
            named = {turn for span in row["relevant_text_span"] for turn in range(int(span[0]), int(span[1]) + 1)}
            inside = [first for first, stop in cut if 2 * len(named & set(range(first, stop))) >= stop - first]
            if inside:
                key = f"{number}.{place}"
                made.queries[key], made.pool[key] = row["query"], list(own)
                made.gold[key] = {f"{number}/{first}": 1.0 for first in inside}
    return made


def mtrag(root: Path) -> RankingSet:
    """Passages under answerable turns of conversations; a question stands behind the one before it."""
    made = RankingSet("mtrag", {}, {}, {})
    for row in lines(root / "mtrag_un/open/mtrag_un_open.jsonl"):
        passages = {one["document_id"]: one["text"].strip() for one in row["contexts"]}
        if row["answerability"] != ["ANSWERABLE"] or not passages:
            continue
        asked = [one["text"] for one in row["input"] if one["speaker"] == "user"][-2:]
        made.docs |= passages
        made.queries[row["task_id"]] = " ".join(asked)
        made.gold[row["task_id"]] = dict.fromkeys(passages, 1.0)
    return made


def named(name: str) -> RankingSet:
    """One set by name, chats included."""
    return CHATS[name](Path(os.environ["CTXMEM_DATA"])) if name in CHATS else load(name)


def _turns(chat: Chat) -> dict[str, str]:
    turns, before = {}, ""
    for turn in chat.turns:
        said = f"{turn.speaker}: {turn.text}"
        turns[f"{chat.name}/{turn.id}"] = f"[{turn.date}] {before} {said}".strip()
        before = " ".join(said.split()[:30])
    return turns


def _stretches(said: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Neighbouring turns of about `WINDOW` words in all: the first and the one behind the last."""
    first, words = 0, 0
    for place, turn in enumerate(said):
        words += len(turn.split())
        if words >= WINDOW or place == len(said) - 1:
            yield first, place + 1
            first, words = place + 1, 0


CHATS: dict[str, Callable[[Path], RankingSet]] = {"beam": beam, "qmsum": qmsum, "mtrag": mtrag}
