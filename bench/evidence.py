"""`python -m bench.evidence`: how much of a question's evidence is in a context of 512, 1,024 or 2,048 tokens.

LoCoMo and BEAM; every way keeps the whole chat first, then fills each budget with the lines it ranks best, passing over
one that does not fit. What counts: the share of the evidence turns' sentences that stand in the context word for word.
Lines are counted with o200k_base. All that goes by meaning goes by the same embedder.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from bench.harness import save, show
from bench.objectives.managers import peers_installed
from bench.remembering import sets
from bench.remembering.ways import Mem0, Newest, Ours, Way, Words
from ctxmem.ports import Counter
from ctxmem.tokens.resolve import counter_for

BUDGETS = (512, 1024, 2048)


def filled(lines: Iterable[str], budget: int, counter: Counter, known: dict[str, int]) -> str:
    """The best lines that fit, each counted with its line end."""
    kept = []
    for line in lines:
        if line not in known:
            known[line] = counter.texts([line + "\n"])[0]
        if known[line] <= budget:
            kept.append(line)
            budget -= known[line]
    return "\n".join(kept)


def recall(context: str, evidence: Sequence[str]) -> float:
    """Mean over the evidence turns of the share of their sentences that stand in the context."""
    read = sets.plain(context)
    shares = []
    for text in evidence:
        told = sets.telling(text)
        shares.append(fmean(sets.plain(one) in read for one in told))
    return fmean(shares)


def measure(way: Way, chats: Sequence[sets.Chat], counter: Counter) -> dict[int, list[float]]:
    """Recall of each question under each budget."""
    known: dict[str, int] = {}
    found: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
    for chat in chats:
        way.keep(chat)
        said = {turn.id: turn.text for turn in chat.turns}
        for question in chat.questions:
            lines = list(way.lines(question.text))
            evidence = [said[id] for id in question.evidence]
            for budget in BUDGETS:
                found[budget].append(recall(filled(lines, budget, counter, known), evidence))
    return found


def ways(vectors: Path) -> dict[str, Way]:
    """Every way by name.

    Args:
        vectors: folder in which vectors are kept.
    """
    from bench.local_models import Kept
    from ctxmem.lm.encoder import embedder_named

    embedder = Kept(embedder_named(), vectors)
    found: dict[str, Way] = {
        "full history, newest kept": Newest(),
        "sliding window of 10 turns": Newest(10),
        "BM25": Words(),
    }
    if peers_installed():
        found["mem0, infer=False"] = Mem0(embedder)
    for name, whole in (("ctxmem statements", False), ("ctxmem messages", True)):
        found[f"{name}, by words"] = Ours(whole=whole)
        found[f"{name}, hybrid"] = Ours(embedder, whole=whole)
    return found


def tables(asked: argparse.Namespace, every: dict[str, Way]) -> dict[str, object]:
    """Print a table for each set; returns the rows of all."""
    counter = counter_for("gpt-4o-mini")
    results: dict[str, object] = {}
    for name in asked.sets:
        chats = list({"locomo": sets.locomo, "beam": sets.beam}[name](asked.data))[: asked.chats]
        rows = []
        for label, way in every.items():
            done = measure(way, chats, counter)
            rows.append([label, *(f"{fmean(done[budget]):.3f}" for budget in BUDGETS)])
            print(rows[-1], flush=True)
        asked_total = sum(len(chat.questions) for chat in chats)
        show(f"{name}: {len(chats)} chats, {asked_total} questions", ("", *map(str, BUDGETS)), rows)
        results[name] = rows
    return results


def main() -> None:
    """Run what is asked for and print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=["locomo", "beam"], default=["locomo", "beam"])
    parser.add_argument("--chats", type=int, default=None, help="of each set")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CTXMEM_DATA") or "../shared/data"))
    parser.add_argument("--cache", type=Path, help="folder in which vectors are kept; by default only while this runs")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="vectors-") as folder:
        save(asked.json, sets=tables(asked, ways(asked.cache or Path(folder))))


if __name__ == "__main__":
    main()
