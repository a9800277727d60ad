"""Scoring in several processes: the scores of one, a deadline, a process that is killed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ctxmem.errors import InvalidInput, ModelError, Unavailable
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.pool import ScorerPool
from tests.unit.lm.conftest import byte_tokens, random_model

TEXTS = ["", "a", "Wie spät? 🕐", "the tram leaves at nine " * 200, "and comes back " * 9]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model as a folder."""
    made = tmp_path_factory.mktemp("model")
    random_model().bfloat16().save_pretrained(made)
    byte_tokens().save(str(made / "tokenizer.json"))
    return made


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[ScorerPool]:
    with ScorerPool(str(folder), processes=2) as running:
        yield running


class TestScores:
    def test_they_are_those_of_one_process(self, pool: ScorerPool, folder: Path) -> None:
        """Of short texts and of one that is many windows."""
        alone = CausalLM.load(str(folder))
        assert pool.name == alone.name
        for ours, theirs in zip(pool.score(TEXTS), alone.score(TEXTS), strict=True):
            assert (ours.starts, ours.ends) == (theirs.starts, theirs.ends)
            assert ours.nats == pytest.approx(theirs.nats, abs=0.05)
        assert min(pool.score(TEXTS[3:])[0].nats) > 0

    def test_of_many_threads_at_once(self, pool: ScorerPool) -> None:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda text: pool.score([text])[0], TEXTS * 3))
        assert found[: len(TEXTS)] == found[len(TEXTS) : 2 * len(TEXTS)]
        assert [len(one.nats) > 0 for one in found[: len(TEXTS)]] == [bool(text) for text in TEXTS]

    def test_of_nothing(self, pool: ScorerPool) -> None:
        assert pool.score([]) == []
        assert pool.seconds([]) == 0
        assert pool.seconds(TEXTS) > pool.seconds(TEXTS[:2]) > 0


class TestFaults:
    def test_a_deadline_that_has_passed(self, pool: ScorerPool) -> None:
        """And the pool goes on."""
        with pytest.raises(Unavailable):
            pool.score(TEXTS, deadline=-1.0)
        assert len(pool.score(TEXTS, deadline=60.0)) == len(TEXTS)

    def test_a_process_that_is_killed(self, folder: Path) -> None:
        """A call that notices first may fail; the next one has a new process."""
        others = set(multiprocessing.active_children())
        with ScorerPool(str(folder), processes=1) as pool:
            before = pool.score(TEXTS)
            for child in set(multiprocessing.active_children()) - others:
                child.kill()
                child.join()
            with suppress(Unavailable):
                pool.score(TEXTS)
            assert pool.score(TEXTS) == before

    def test_no_process_and_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput):
            ScorerPool(str(tmp_path), processes=0)
        with pytest.raises(ModelError, match=r"config\.json"):
            ScorerPool(str(tmp_path), processes=1)
