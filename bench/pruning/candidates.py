"""All rows of the table by name, each ready to be asked; those whose parts are missing say so."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.pruning import peers
from bench.pruning.kept import KeptResults
from bench.pruning.minilm import MiniLM
from bench.pruning.peers import PeerProcess
from bench.pruning.rows import Row, baselines
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.remembered import Remembered
from ctxmem.lm.causal import CausalLM
from ctxmem.models import home
from ctxmem.ports import Counter, Embedder, Scorer
from ctxmem.tokens.resolve import counter_for

MODEL = "smollm2"
NAMES = (
    *("none", "head", "tail", "random word", "random sentence", "BM25 sentences", "MiniLM sentences"),
    *("selective-context", "llmlingua", "longllmlingua (query)", "lexical", "ours"),
    *("lexical (query)", "ours (query)"),
)
"""In the order of the table."""
ASKED = frozenset(name for name in NAMES if name.endswith((" sentences", "(query)")))
"""Rows that are told the question; the others give one text for all questions."""


@dataclass(slots=True)
class Candidates:
    """The rows and what they share.

    Attributes:
        kept: results of earlier runs.
        counter: counts all rows' tokens.
        minilm: the encoder.
        processes: peers at work.
        scorer: the language model's scores, read from `kept` where they are.
    """

    kept: KeptResults
    counter: Counter = field(default_factory=lambda: counter_for(MODEL))
    minilm: MiniLM = field(default_factory=MiniLM)
    processes: dict[str, PeerProcess] = field(default_factory=dict)
    scorer: Scorer | None = None

    def row(self, name: str) -> Row:
        """The row behind a name.

        Raises:
            KeyError: it is not one of `NAMES`, or its package is not installed.
        """
        plain = baselines(self.counter)
        made: dict[str, Callable[[], Row]] = {
            "MiniLM sentences": lambda: partial(self.minilm.sentences, counter=self.counter),
            "lexical": lambda: self._ours(Lexical()),
            "ours": lambda: self._ours(self._lm()),
            "lexical (query)": lambda: self._ours(Lexical(), self.minilm),
            "ours (query)": lambda: self._ours(self._lm(), self.minilm),
            "longllmlingua (query)": lambda: self._peer("llmlingua", asked=True),
            **{peer: partial(self._peer, peer, asked=False) for peer in peers.installed()},
        }
        return plain[name] if name in plain else made[name]()

    def available(self) -> list[str]:
        """The rows that can be had here."""
        here = peers.installed()
        lacking = {*(peers.SCRIPTS.keys() - set(here)), *(() if "llmlingua" in here else ("longllmlingua (query)",))}
        return [name for name in NAMES if name not in lacking]

    def close(self) -> None:
        """End what was started."""
        for process in self.processes.values():
            process.close()

    def _ours(self, scorer: Scorer, embedder: Embedder | None = None) -> Row:
        compressor = Compressor(self.counter, scorer, embedder=embedder)

        def row(text: str, query: str, allowed: int) -> str:
            made = compressor(text, allowed, query=query)
            return made.text if made.text is not None else text

        return row

    def _peer(self, name: str, *, asked: bool) -> Row:
        process = self.processes.setdefault(name, PeerProcess(name, home(MODEL)))

        def row(text: str, query: str, allowed: int) -> str:
            told = {"text": text, "query": query if asked else "", "allowed": allowed}
            return self.kept.text(name, sorted(told.items()), lambda: str(process.ask("compress", **told)["text"]))

        return row

    def _lm(self) -> Scorer:
        if self.scorer is None:
            model = CausalLM.load(MODEL)
            self.scorer = Remembered(model, self.kept, "bench", ThreadPoolExecutor(1))
        return self.scorer


def results_file() -> Path:
    """Where results are kept between runs."""
    return Path("~/.cache/ctxmem/bench/compression.sqlite").expanduser()
