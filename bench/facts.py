"""`python -m bench.facts`: a hundred facts, told one by one in a long chat, and how many can still be answered.

Each turn tells one fact amid prose of an encyclopedia, 27,600 tokens in all. Afterwards each fact is asked for; it
counts when its sentence stands in what the way would show within 2,048 tokens. Summarisers get a perfect language
model: it writes down every fact it is shown, in as many tokens as its caller allows.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from bench.evidence import filled
from bench.harness import save, show
from bench.objectives import managers
from bench.objectives.world import plain
from ctxmem.compressors.mem1.engine import Mem1
from ctxmem.compressors.mem1.knobs import Knobs
from ctxmem.memories import Memories, Wanted
from ctxmem.ports import Counter
from ctxmem.stores.sql import SqlStore
from ctxmem.tokens.resolve import counter_for

NUMBER = 100
TOTAL = 27_600
"""Tokens of the chat."""

ROOM = 2_048
"""Tokens that state and recall may take."""

LOOKED_AT = 10
"""Events that recall looks at for a question; the best sentences of them fill its half of the room."""

TRIGGER = 8_000
"""Tokens past which the peers summarise."""

LANGMEM_SUMMARY = 256
"""Tokens of a summary that langmem allows unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What is told.

    Attributes:
        said: its sentence.
        asked: the question.
        turn: the turn that tells it.
    """

    said: str
    asked: str
    turn: str


def chat(data: Path, counter: Counter, seed: int) -> list[Fact]:
    """The turns of the chat, a fact each."""
    random = Random(seed)
    prose = _paragraphs(data)
    names = random.sample([f"{one} {two}" for one in _FIRST for two in _SECOND], NUMBER)
    codes = random.sample(range(10_000, 99_999), NUMBER)
    facts = []
    for name, code in zip(names, codes, strict=True):
        said = f"The gate code of the {name} depot is {code}."
        room = TOTAL // NUMBER - counter.texts([said])[0]
        words = next(prose).split()
        while counter.texts([" ".join(words)])[0] < room:
            words += next(prose).split()
        while counter.texts([" ".join(words)])[0] > room:
            words = words[: -max(1, (counter.texts([" ".join(words)])[0] - room) // 3)]
        half = len(words) // 2
        turn = f"{' '.join(words[:half])}. {said} {' '.join(words[half:])}"
        facts.append(Fact(said, f"What is the gate code of the {name} depot?", turn))
    return facts


def by_peer(name: str, facts: Sequence[Fact], counter: Counter) -> int:
    """Facts in what a published summariser shows after the last turn; it may show more than `ROOM`."""
    peer = managers.Peer(name, TRIGGER)

    def ask(text: str) -> str:
        read = plain(text)
        seen = [fact.said for fact in facts if plain(fact.said) in read]
        return filled(seen, LANGMEM_SUMMARY, counter, {}) if name == "langmem" else "\n".join(seen)

    history = [{"role": "system", "content": "You keep a log."}]
    new = list(history)
    for fact in facts:
        new.append({"role": "user", "content": fact.turn})
        shown = peer.show(history if len(history) > 1 else new, new, ask)
        history += new
        new = [{"role": "assistant", "content": "Noted."}]
    peer.close()
    read = plain("\n".join(said["content"] for said in shown))
    return sum(plain(fact.said) in read for fact in facts)


def by_window(facts: Sequence[Fact], counter: Counter) -> int:
    """Facts in the newest turns that fit."""
    read = plain(filled((fact.turn for fact in reversed(facts)), ROOM, counter, {}))
    return sum(plain(fact.said) in read for fact in facts)


def by_state(facts: Sequence[Fact], counter: Counter) -> tuple[int, int]:
    """Facts in state and recall, asked one by one, no language model; and turns that come back word for word."""
    memory = Mem1("Keep a log.", counter, knobs=Knobs(b_state=ROOM // 2, b_recall=ROOM // 2 - 8, cadence="tokens>2000"))
    handles = []
    for fact in facts:
        handles.append(memory.add("user", fact.turn))
        if memory.due():
            memory.consolidate()
    memory.consolidate()

    def context(fact: Fact) -> str:
        return f"{memory.state.text()}\n{memory.recollect([fact.asked], k=LOOKED_AT)}"

    restored = sum(memory.said(handle).text == fact.turn for handle, fact in zip(handles, facts, strict=True))
    return _answered(facts, counter, context), restored


def by_memories(facts: Sequence[Fact], counter: Counter) -> tuple[int, int]:
    """Facts in what the long-term memories give for each question, by words; and turns that a memory is traced to."""
    with TemporaryDirectory() as folder:
        store = SqlStore(f"sqlite:///{folder}/log.db")
        kept = Memories(store.memories, log=lambda messages, who: [(f"t{messages[0].text}", "s") for _ in messages])
        for fact in facts:
            kept.add(fact.turn, "u")

        def context(fact: Fact) -> str:
            hits = kept.search(fact.asked, "u", Wanted(top_k=50)).hits
            return filled((hit.memory.text for hit in hits), ROOM, counter, {})

        found = _answered(facts, counter, context)
        turns = {source.event_id for one in kept.list("u", limit=1000) for source in one.sources}
        store.close()
    return found, sum(f"t{fact.turn}" in turns for fact in facts)


def _answered(facts: Sequence[Fact], counter: Counter, context: Callable[[Fact], str]) -> int:
    found = 0
    for fact in facts:
        shown = context(fact)
        if counter.texts([shown])[0] > ROOM:
            raise RuntimeError("state and recall are over their room")
        found += plain(fact.said) in plain(shown)
    return found


def _paragraphs(data: Path) -> Iterator[str]:
    for file in sorted((data / "wiki2_corpus").rglob("*.jsonl")):
        with file.open() as lines:
            for line in lines:
                yield str(json.loads(line).get("text") or "").rstrip(".")


_FIRST = ("Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Gorse", "Hazel", "Ivy", "Juniper", "Larch", "Maple")
_SECOND = ("Bay", "Bridge", "Cross", "Dale", "End", "Field", "Gate", "Hill", "Moor", "Point", "Rise", "Vale")


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CTXMEM_DATA") or "../shared/data"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    counter = counter_for("gpt-4o-mini")
    facts = chat(asked.data, counter, asked.seed)
    rows = [["newest turns that fit", str(by_window(facts, counter)), ""]]
    if managers.peers_installed():
        rows.append(["LangChain SummarizationMiddleware", str(by_peer("langchain", facts, counter)), ""])
        rows.append(["langmem summarize_messages", str(by_peer("langmem", facts, counter)), ""])
    rows.append(["ctxmem state + recall", *map(str, by_state(facts, counter))])
    rows.append(["ctxmem memories", *map(str, by_memories(facts, counter))])
    total = sum(counter.texts([fact.turn for fact in facts]))
    show(f"{NUMBER} facts in {total} tokens", ("", "answered", "traced to the turn, word for word"), rows)
    save(asked.json, rows=rows)


if __name__ == "__main__":
    main()
