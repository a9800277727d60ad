"""Reranking with little memory: the same scores, and blocks that go back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from ctxmem.lm.rerank.heap import give_back
from ctxmem.lm.rerank.reranker import Reranker

TEXTS = ["Hamlet is a tragedy by Shakespeare.", "Bread is made of flour.", "The sea is wide and blue. " * 30, ""]

FREED = """
import sys
from pathlib import Path
from ctxmem.lm.rerank.heap import give_back

def resident():
    return int(next(line for line in Path("/proc/self/status").open() if line.startswith("VmRSS")).split()[1])

if sys.argv[1] == "told":
    give_back()
before = resident()
for size in (8, 16, 30):  # in MB; each that is freed has glibc take the next smaller ones from its heap
    bytearray(size << 20)
blocks = [bytearray(b"x") * (4 << 20) for _ in range(8)]
last = bytearray(b"x") * 100_000
del blocks
print((resident() - before) // 1024)
"""


def test_a_stream_scores_as_the_whole_model_does() -> None:
    streamed, whole = Reranker.load(memory="stream"), Reranker.load()
    found, wanted = streamed.score("who wrote Hamlet?", TEXTS), whole.score("who wrote Hamlet?", TEXTS)
    assert found == pytest.approx(wanted, abs=1e-4)
    streamed.close()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone keeps freed blocks so")
class TestHeap:
    def test_it_can_be_told_again_and_again(self) -> None:
        assert give_back()
        assert give_back()

    def test_freed_blocks_go_back(self) -> None:
        kept, told = (
            int(subprocess.run([sys.executable, "-c", FREED, way], capture_output=True, check=True, text=True).stdout)
            for way in ("not told", "told")
        )
        assert told < 4
        assert kept > 16, "glibc gives them back without being told, so this file proves nothing"
