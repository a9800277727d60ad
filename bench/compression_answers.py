"""Can a model still answer? Gold answers under SmolLM2 after compression, and what less context saves it.

    python -m bench.compression_answers              # half kept, 12 questions of each set, every row
    python -m bench.compression_answers --data squad --rows ours "ours (query)" --questions 20 --ratios 0.5 0.2

One question of each text, asked after it in SmolLM2's chat template. `nll`: nats a token of the gold answer as the
reply, as the change against the full text. `F1`: words of a greedy reply of 24 tokens beside the gold answer's (weak: a
135M model). `prefill`: change of the CPU seconds to read the prompt, one thread; `KV`: of the bytes of keys and values
it leaves. Intervals of 95 % by bootstrap over the questions.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.harness import save, show
from bench.pruning import cases
from bench.pruning.candidates import ASKED, MODEL, NAMES, Candidates, results_file
from bench.pruning.cases import plain
from bench.pruning.kept import KeptResults
from bench.pruning.measures import mean
from bench.pruning.peers import PeerFailed
from ctxmem import chat
from ctxmem.lm.causal import CausalLM
from ctxmem.tokens.hf import HFCounter

SETS = ("squad", "hotpotqa", "locomo", "leval")
REPLY = 24
_ASK = "{text}\n\nAnswer in a few words: {query}"


@dataclass(frozen=True, slots=True)
class Read:
    """What the model made of one prompt.

    Attributes:
        nll: nats a token of the gold answer.
        f1: of the words of its own reply.
        prefill: CPU seconds.
        tokens: of the prompt.
        kv: bytes of its keys and values.
    """

    nll: float
    f1: float
    prefill: float
    tokens: int
    kv: int


@dataclass(slots=True)
class Reader:
    """The model that answers.

    Attributes:
        lm: the model.
        counter: renders its chat template.
    """

    lm: CausalLM
    counter: HFCounter

    def read(self, text: str, query: str, gold: str) -> Read:
        """Ask about a text."""
        asked = chat.parse_all([{"role": "user", "content": _ASK.format(text=text, query=query)}])
        prompt = self.counter.encode_request(asked)
        answer = list(self.lm.tokenizer.encode([gold])[0].ids)
        with torch.inference_mode():
            began = time.process_time()
            out = self.lm.model(input_ids=torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
            prefill = time.process_time() - began
            cache = out.past_key_values
            kv = sum(2 * layer.keys.numel() * layer.keys.element_size() for layer in cache.layers)
            rest = self.lm.model(input_ids=torch.tensor([answer]), past_key_values=cache, use_cache=True)
            logits = torch.cat([out.logits[0], rest.logits[0, :-1]]).float()
            nll = torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).item()
            cache.crop(-len(answer))
            reply = self._greedy(out.logits[0, -1], cache)
        return Read(nll, f1(reply, gold), prefill, len(prompt), kv)

    def _greedy(self, logits: torch.Tensor, cache: object) -> str:
        end = self.lm.tokenizer.id("<|im_end|>")
        said: list[int] = []
        while len(said) < REPLY and (token := int(logits.argmax())) != end:
            said.append(token)
            logits = self.lm.model(input_ids=torch.tensor([[token]]), past_key_values=cache).logits[0, -1]
        return self.lm.tokenizer.decode(said)


def f1(reply: str, gold: str) -> float:
    """Of the words, as SQuAD has it."""
    one, other = Tally(plain(reply).split()), Tally(plain(gold).split())
    same = sum((one & other).values())
    return 2 * same / (sum(one.values()) + sum(other.values())) if same else 0.0


def row_of(name: str, data: str, questions: int, ratio: float, at: tuple[Candidates, Reader]) -> list[Read]:
    """What the model makes of a row's outputs; an empty list when the package raised."""
    candidates, reader = at
    row, found = candidates.row(name), []
    for number, case in enumerate(cases.load(data, questions)):
        print(f"{data} {name} {number}", end="\r", file=sys.stderr, flush=True)
        question = case.questions[0]
        allowed = int(ratio * candidates.counter.texts([case.text])[0])
        try:
            text = row(case.text, question.query if name in ASKED else "", allowed)
        except PeerFailed:
            return []
        found.append(reader.read(text, question.query, question.answer))
    return found


def interval(values: Sequence[float], form: str) -> str:
    """Mean and 95 % interval."""
    found = mean(list(enumerate(values)))
    return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]" if found else "-"


def line(name: str, reads: Sequence[Read], full: Sequence[Read]) -> tuple[str, ...]:
    """One row of the table."""
    pairs = list(zip(reads, full, strict=True))
    prefill = sum(read.prefill for read in reads) / sum(read.prefill for read in full) - 1
    kv = sum(read.kv for read in reads) / sum(read.kv for read in full) - 1
    return (
        name,
        interval([read.nll - whole.nll for read, whole in pairs], "+.2f"),
        interval([read.f1 for read in reads], ".2f"),
        f"{prefill:+.0%}",
        f"{kv:+.0%}",
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=cases.SETS, default=SETS)
    parser.add_argument("--rows", nargs="+", choices=NAMES, help="default: all that are installed")
    parser.add_argument("--questions", type=int, default=12, help="of each set")
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.5])
    parser.add_argument("--json", type=Path, help="write everything there")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    candidates = Candidates(KeptResults(results_file()))
    counter = candidates.counter
    if not isinstance(counter, HFCounter):
        raise SystemExit(f"{MODEL} has no tokenizer here")
    at = candidates, Reader(CausalLM.load(MODEL), counter)
    names = [name for name in asked.rows or candidates.available() if name != "none"]
    everything: dict[str, dict[str, list[Read]]] = {}
    for data in asked.data:
        full = row_of("none", data, asked.questions, 1.0, at)
        everything[data] = {"none": full}
        nats = sum(read.nll for read in full) / len(full)
        for ratio in asked.ratios:
            found = {name: row_of(name, data, asked.questions, ratio, at) for name in names}
            lines = [line(name, reads, full) for name, reads in {"none": full, **found}.items() if reads]
            title = f"{data}, {ratio:g} kept, n = {len(full)}; nll of the full text {nats:.2f}"
            show(title, ("row", "nll change", "F1", "prefill", "KV"), lines)
            everything[data] |= {f"{name} {ratio:g}": reads for name, reads in found.items()}
    candidates.close()
    save(asked.json, results=everything)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
