"""Scores are worked out once: the same bytes from the cache as from the scorer, in any thread and process."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.remembered import Remembered, pack, unpack
from ctxmem.errors import Unavailable
from ctxmem.ports import TokenScores
from ctxmem.stores.memory import MemoryCache
from ctxmem.testing import WordCounter

TURNS = [
    " ".join(f"The ship {turn}-{i} of Name{i} came in {1800 + i * turn}, and then it left again." for i in range(12))
    for turn in range(8)
]


class Slow:
    """A scorer that notes what it is given and works only when it may."""

    name = "slow"

    def __init__(self, *, open_: bool = True, broken: int = 0) -> None:
        self.given: list[str] = []
        self.gate, self.started = threading.Event(), threading.Event()
        self.broken = broken
        if open_:
            self.gate.set()

    def seconds(self, texts):
        return 0.0

    def score(self, texts, *, deadline=None):
        self.given += texts
        self.started.set()
        assert self.gate.wait(20)
        if self.broken:
            self.broken -= 1
            raise Unavailable("gone")
        return Lexical().score(texts)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as made:
        yield made


def halved(scorer, text: str) -> str | None:
    return Compressor(WordCounter(), scorer)(text, 90).text


class TestBytes:
    def test_a_hit_and_a_cold_run_agree(self, pool):
        """Text by text, and with a cache of another process's making."""
        cache = MemoryCache()
        cold = [halved(Remembered(Lexical(), cache, "t", pool), turn) for turn in TURNS]
        warm = Slow()
        assert [halved(Remembered(warm, MemoryCache(), "t", pool), turn) for turn in TURNS] == cold
        gone = Slow(broken=99)
        gone.name = Lexical().name
        dead = Remembered(gone, cache, "t", pool)
        assert [halved(dead, turn) for turn in TURNS] == cold != TURNS

    def test_two_processes_agree(self, pool):
        """Whatever their hash seeds."""
        code = (
            "from tests.unit.compressors.test_remembered import *; p = ThreadPoolExecutor(1);"
            "r = Remembered(Lexical(), MemoryCache(), 't', p);"
            "print(ascii([halved(r, t) for t in TURNS + TURNS]))"
        )
        run = [sys.executable, "-c", code]
        outs = [
            subprocess.run(run, capture_output=True, text=True, env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."})
            for seed in ("1", "2")
        ]
        assert outs[0].returncode == 0, outs[0].stderr
        mine = Remembered(Lexical(), MemoryCache(), "t", pool)
        assert outs[0].stdout == outs[1].stdout == ascii([halved(mine, turn) for turn in TURNS + TURNS]) + "\n"

    def test_few_bytes_a_token(self):
        """Far below what is stored for the text itself."""
        scores = Lexical().score([" ".join(TURNS)])[0]
        assert len(pack(scores)) <= 4 * len(scores.nats)

    @pytest.mark.parametrize(
        "scores",
        [
            TokenScores((), (), ()),
            TokenScores((0, 0, 5), (1, 1, 90_000), (0.0, float("inf"), 70_000.0)),
            TokenScores((2,), (2,), (-0.0,)),
        ],
    )
    def test_odd_scores(self, scores):
        """None, overlapping, empty, beyond half precision; a second round changes nothing."""
        once = unpack(pack(scores))
        assert (once.starts, once.ends) == (scores.starts, scores.ends)
        assert unpack(pack(once)) == once


class TestOnce:
    def test_an_appended_turn_is_all_that_is_scored(self, pool):
        """Turn n + 1 costs its own text, not the conversation's; the turns before come out as before."""
        scorer = Slow()
        remembered = Remembered(scorer, MemoryCache(), "t", pool)
        before: list[str | None] = []
        for number in range(1, len(TURNS) + 1):
            scorer.given.clear()
            now = [halved(remembered, turn) for turn in TURNS[:number]]
            assert scorer.given == [TURNS[number - 1]]
            assert now[:-1] == before
            before = now

    def test_threads_share_one_scoring(self, pool):
        """Who comes meanwhile waits for the first."""
        scorer = Slow(open_=False)
        remembered = Remembered(scorer, MemoryCache(), "t", pool)
        first = pool.submit(remembered.score, TURNS[:2])
        assert scorer.started.wait(20)
        rest = [pool.submit(remembered.score, TURNS[1:3]) for _ in range(2)]
        scorer.gate.set()
        assert first.result(20)[1] == rest[0].result(20)[0] == rest[1].result(20)[0]
        assert sorted(scorer.given) == sorted(TURNS[:3])

    def test_who_waits_keeps_the_deadline(self, pool):
        """A fallback must get its chance."""
        scorer = Slow(open_=False)
        remembered = Remembered(scorer, MemoryCache(), "t", pool)
        first = pool.submit(remembered.score, TURNS[:1])
        assert scorer.started.wait(20)
        with pytest.raises(Unavailable):
            remembered.score(TURNS[:1], deadline=0.01)
        scorer.gate.set()
        first.result(20)

    def test_a_failure_is_not_shared(self, pool):
        """Who waited for a scoring that failed tries himself, and nothing is left behind."""
        scorer = Slow(open_=False, broken=1)
        remembered = Remembered(scorer, MemoryCache(), "t", pool)
        first = pool.submit(remembered.score, TURNS[:1])
        assert scorer.started.wait(20)
        second = pool.submit(remembered.score, TURNS[:1])
        scorer.gate.set()
        with pytest.raises(Unavailable):
            first.result(20)
        assert second.result(20) == remembered.score(TURNS[:1])
        assert not remembered.flights.going

    def test_tenants_share_nothing(self, pool):
        """Not even for the same text."""
        scorer, cache = Slow(), MemoryCache()
        for tenant in ("a", "b", "a"):
            Remembered(scorer, cache, tenant, pool).score(TURNS[:1])
        assert scorer.given == TURNS[:1] * 2
