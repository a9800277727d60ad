"""What a compressed memory costs and saves as a conversation grows, and whether answers behind it still end.

    python -m bench.ccm_serving --data DATA [--lengths 512 1024 2048 4096 7936] [--answers 30]

Growth: for a history of each length, bytes of the key/value states that a session keeps, seconds until the first token
of the next answer, and decoded tokens a second, of the full context and of each rule of update; the recent turns behind
either are the same. Full context is measured cold (all of it read) and warm (only what is new). Times are medians of
interleaved rounds in this process, on one thread. Answers: share of greedy ones that end by themselves in 128 tokens.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from transformers import DynamicCache

from bench.kvmemory.sets import DIALOGUES, dialogues
from bench.kvmemory.ways import joined
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.ccm.compressed import ADAPTER, STEP
from ctxmem.lm.ccm.files import load_adapter
from ctxmem.lm.ccm.memory import Memory, MemoryModel
from ctxmem.lm.ccm.rows import ROLES, ChatML
from ctxmem.lm.ccm.sessions import ENDLESS
from ctxmem.lm.ccm.update import CONCAT, Update
from ctxmem.lm.generate import BLOCK, ChatModel
from ctxmem.lm.reply import Completion, Sampling
from ctxmem.lm.sessions import Past
from ctxmem.stateless import count_tokens

RECENT = 64
"""Tokens of the turn that is answered."""
ROUNDS = 3
ANSWER = 128
"""Most tokens of an answer."""
TOKENS = 4
"""Slots per step of a memory."""
GREEDY = Sampling(temperature=0.0, max_tokens=ANSWER)
DECODED = 32
"""Tokens over which decoding is timed."""

FULL = "full context"
RULES = {"CCM, concat": CONCAT, "CCM, merge": Update("merge"), "CCM, hybrid of 9 groups": ENDLESS}


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 7936])
    parser.add_argument("--answers", type=int, default=30)
    asked = parser.parse_args()
    count_tokens("", model="smollm2")
    bench = Serving(CausalLM.load("smollm2", threads=1))
    bench.growth(asked.data, asked.lengths)
    bench.endings(asked.data, asked.answers)


class Serving:
    """One model, the shipped adapter, and answers behind what they leave."""

    def __init__(self, lm: CausalLM) -> None:
        adapter, sink = load_adapter(ADAPTER, lm.model)
        self.model = MemoryModel(lm.model, adapter, sink=sink)
        self.chat, self.chatml = ChatModel(lm), ChatML(lm.tokenizer)
        self.opening = [self.chatml.start, *lm.tokenizer.encode(["assistant\n"])[0].ids]

    def growth(self, data: Path, lengths: Sequence[int]) -> None:
        """Bytes kept, seconds to the first token and tokens a second, by length of the history and by way."""
        print("| history | way | kept, kB | to the first token, s | tokens/s |\n|---|---|---|---|---|")
        _, path, field = DIALOGUES["msc"]
        ids = joined([self._ids(said) for said in dialogues(data / path, field)])
        for length in lengths:
            history, prompt = ids[:length], [*ids[length : length + RECENT], *self.opening]
            whole = self._read(history)
            kept = {f"{FULL}, cold": _bytes(whole), f"{FULL}, warm": _bytes(whole)}
            pasts: dict[str, Callable[[], DynamicCache]] = {
                f"{FULL}, cold": lambda: self.model.cache(self.model.empty()),
                f"{FULL}, warm": lambda whole=whole: _shared(whole),  # type: ignore[misc]
            }
            for name, update in RULES.items():
                memory = self._compressed(update, history)
                kept[name] = memory.states.nbytes
                pasts[name] = lambda memory=memory: self.model.cache(memory)  # type: ignore[misc]
            took: dict[str, list[tuple[float, float]]] = {name: [] for name in pasts}
            for _ in range(ROUNDS):
                for name, past in pasts.items():
                    read = [*history, *prompt] if name.endswith("cold") else prompt
                    took[name].append(self._timed(past(), read))
            for name, times in took.items():
                first, rate = median(one for one, _ in times), median(one for _, one in times)
                print(f"| {length} | {name} | {kept[name] / 1000:,.0f} | {first:.2f} | {rate:.1f} |", flush=True)

    def endings(self, data: Path, count: int) -> None:
        """How many greedy answers end by themselves, by set and way."""
        print(f"\nOf {count} greedy answers each, share that ends within {ANSWER} tokens, and mean length\n")
        print("| set | way | ended | tokens |\n|---|---|---|---|")
        for title, path, field in DIALOGUES.values():
            said = list(dialogues(data / path, field))[:count]
            for name, update in {FULL: None, **RULES}.items():
                done = [self._ending(turns, update) for turns in said]
                ended = sum(one.finish_reason == "stop" for one in done) / len(done)
                length = sum(one.completion_tokens for one in done) / len(done)
                print(f"| {title} | {name} | {ended:.2f} | {length:.0f} |", flush=True)

    def _timed(self, past: DynamicCache, prompt: Sequence[int]) -> tuple[float, float]:
        """Seconds until a prompt is read behind a past, and tokens a second after it."""
        began = time.perf_counter()
        for start in range(0, len(prompt), BLOCK):
            self._read(prompt[start : start + BLOCK], past)
        read = time.perf_counter()
        for _ in range(DECODED):
            self._read(self.opening[-1:], past)
        return read - began, DECODED / (time.perf_counter() - read)

    def _ending(self, turns: Sequence[str], update: Update | None) -> Completion:
        """Of the answer to the last user turn, behind the turns before it."""
        turns = turns[: (len(turns) - 1) // 2 * 2 + 1]
        history, last = self._ids(turns[:-1]), self._ids(turns[-1:])
        past = self._read(history) if update is None else self.model.cache(self._compressed(update, history))
        steps = self.chat.reply([*last, *self.opening], GREEDY, behind=Past("", past))
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value

    def _ids(self, turns: Sequence[str]) -> list[int]:
        return joined([self.chatml.message(ROLES[at % 2], turn) for at, turn in enumerate(turns)])

    def _read(self, ids: Sequence[int], behind: DynamicCache | None = None) -> DynamicCache:
        """Read ids behind a cache, which grows by them; behind the sink alone without one."""
        cache = self.model.cache(self.model.empty()) if behind is None else behind
        with torch.inference_mode():
            self.model.model(input_ids=torch.tensor([list(ids)]), past_key_values=cache, logits_to_keep=1)
        return cache

    def _compressed(self, update: Update, ids: Sequence[int]) -> Memory:
        memory = self.model.empty(update, tokens=TOKENS)
        for start in range(0, len(ids), STEP):
            memory = self.model.compress(memory, ids[start : start + STEP])
        return memory


def _bytes(cache: DynamicCache) -> int:
    return sum(keys.nbytes + values.nbytes for keys, values, _ in cache)


def _shared(cache: DynamicCache) -> DynamicCache:
    return DynamicCache([(keys, values) for keys, values, _ in cache])


if __name__ == "__main__":
    main()
