"""What is left of real texts after compression to the same number of tokens: ours, the usual baselines, two packages.

    python -m bench.compression                                # every set, every row, a few texts of each
    python -m bench.compression --data squad locomo --rows ours lexical "random sentence" --ratios 0.5 --texts 24

All rows get the same texts, the same questions and the same number of SmolLM2 tokens. `answer`: the gold answer still
stands there word for word. `answer words`: its content words do. `gold span`: content words of the passage it is taken
from. `numbers`, `negations` with the word after them: of the whole text. All in percent, intervals of 95 % by bootstrap
over the texts. `>`: outputs over the allowance; `err`: texts on which the package raised. Rules of the library
are chosen on other texts, which `--dev` has.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.harness import save, show
from bench.pruning import cases
from bench.pruning.candidates import ASKED, NAMES, Candidates, results_file
from bench.pruning.cases import Case
from bench.pruning.kept import KeptResults
from bench.pruning.measures import COLUMNS, MEASURES, TEXT_MEASURES, Mean, Sample, mean
from bench.pruning.peers import PeerFailed
from bench.pruning.rows import Row

RATIOS = (0.65, 0.5, 0.35, 0.2)


@dataclass(slots=True)
class Tally:
    """What one row made of one set at one ratio.

    Attributes:
        samples: by column, one for each question.
        kept: by text, share of its tokens that stayed.
        over: texts whose output is over the allowance.
        failed: what went wrong, by text.
    """

    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    kept: list[Sample] = field(default_factory=list)
    over: int = 0
    failed: list[str] = field(default_factory=list)

    def add(self, text: int, values: Mapping[str, float | None]) -> None:
        """Take what was measured of one output."""
        for name, value in values.items():
            if value is not None:
                self.samples[name].append((text, value))

    def means(self) -> dict[str, Mean | None]:
        """By column."""
        return {name: mean(self.samples[name]) for name in COLUMNS}


def measure(texts: Sequence[Case], row: Row, ratio: float, candidates: Candidates, *, asked: bool) -> Tally:
    """Compress each text, once or once for each question, and look at what is left."""
    tally = Tally()
    count = candidates.counter.texts
    for number, case in enumerate(texts):
        before = count([case.text])[0]
        allowed = int(ratio * before)
        outputs: dict[str, str] = {}
        for question in case.questions:
            query = question.query if asked else ""
            try:
                if query not in outputs:
                    outputs[query] = row(case.text, query, allowed)
            except PeerFailed as error:
                tally.failed.append(f"{number}: {error}")
                break
            tally.add(number, {name: its(case, question, outputs[query]) for name, its in MEASURES.items()})
        for output in outputs.values():
            tally.add(number, {name: its(case, output) for name, its in TEXT_MEASURES.items()})
            after = count([output])[0]
            tally.kept.append((number, after / before))
            tally.over += after > allowed
    return tally


def table(data: str, ratio: float, tallies: Mapping[str, Tally], texts: Sequence[Case]) -> None:
    """Print one set at one ratio."""
    lines = []
    for name, tally in tallies.items():
        kept = mean(tally.kept)
        figures = [str(value) if value else "-" for value in tally.means().values()]
        lines.append(
            (name, f"{100 * kept.value:.1f}" if kept else "-", str(tally.over), str(len(tally.failed)), *figures)
        )
    asked = sum(len(case.questions) for case in texts)
    title = f"{data}, {ratio:g} of the tokens kept; {len(texts)} texts, {asked} questions"
    show(title, ("row", "kept", ">", "err", *COLUMNS), lines)


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=cases.SETS, default=list(cases.SETS))
    parser.add_argument("--rows", nargs="+", choices=NAMES, help="default: all that are installed")
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    parser.add_argument("--texts", type=int, help="texts of each set; a number over all: all but those of --dev")
    parser.add_argument("--dev", action="store_true", help="other texts: those that the library's rules were chosen on")
    parser.add_argument("--after", type=int, default=0, help="leave out so many texts first")
    parser.add_argument("--skip", nargs="+", choices=NAMES, default=[], help="rows to leave out")
    parser.add_argument("--results", type=Path, default=results_file(), help="SQLite file of scores and peers' outputs")
    parser.add_argument("--json", type=Path, help="write everything there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    asked = options(arguments)
    torch.set_num_threads(1)
    candidates = Candidates(KeptResults(asked.results))
    names = [name for name in asked.rows or candidates.available() if name not in asked.skip]
    results = []
    for data in asked.data:
        texts = cases.load(data, asked.texts or cases.REPORTED[data], dev=asked.dev, after=asked.after)
        for ratio in asked.ratios:
            tallies = {}
            for name in names:
                print(f"{data} {ratio:g} {name}", end="\r", file=sys.stderr, flush=True)
                tallies[name] = measure(texts, candidates.row(name), ratio, candidates, asked=name in ASKED)
            table(data, ratio, tallies, texts)
            results += [
                {"data": data, "ratio": ratio, "row": name, "over": t.over, "failed": t.failed, "columns": t.means()}
                for name, t in tallies.items()
            ]
    candidates.close()
    save(asked.json, results=results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
