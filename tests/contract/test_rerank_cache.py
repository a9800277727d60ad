"""Scores of the reranker in a shared cache: the same with and without it, apart for tenants, and never in the way."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from ctxmem.lm.rerank.late import LateReranker, shipped
from ctxmem.lm.rerank.reranker import Reranker
from ctxmem.ports import Cache, reranker_of
from ctxmem.retrieval.pruning import Prism
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.redis import RedisCache
from ctxmem.stores.valkey import EmbeddedValkey

QUERY = "who wrote Hamlet?"
TEXTS = ["Bread is made of flour.", "Hamlet is a play by William Shakespeare.", " ", "The tram stops at nine.", "x"]


@pytest.fixture(scope="module")
def plain() -> Reranker:
    """The shipped reranker, which remembers nothing."""
    return Reranker.load()


def with_cache(plain: Reranker, cache: Cache) -> Reranker:
    """As another process would have it."""
    return Reranker(plain.model, cache=cache)


class TestSameWithAndWithout:
    def test_bit_for_bit(self, plain: Reranker, cache: Cache) -> None:
        """Whether it is the first to ask, the second, or another process."""
        first, other = with_cache(plain, cache), with_cache(plain, cache)
        expected = plain.score(QUERY, TEXTS)
        assert first.score(QUERY, TEXTS) == expected
        assert first.score(QUERY, TEXTS) == other.score(QUERY, TEXTS) == expected
        assert (first.remembered, other.remembered) == (4, 4)

    def test_ranked_too(self, plain: Reranker, cache: Cache) -> None:
        """Order and scores; what costs nothing says so."""
        expected = plain.rank(QUERY, TEXTS)
        first, second = (with_cache(plain, cache).rank(QUERY, TEXTS) for _ in range(2))
        assert (first.order, first.scores, first.cost_fraction) == (expected.order, expected.scores, 1.0)
        assert (second.order, second.scores, second.cost_fraction) == (expected.order, expected.scores, 0.0)

    def test_only_what_is_new_is_run(self, plain: Reranker, cache: Cache) -> None:
        """Its share of the work is said; known scores stay as they were."""
        known = with_cache(plain, cache).score(QUERY, TEXTS[:2])
        reranker = with_cache(plain, cache)
        found = reranker.rank(QUERY, TEXTS, k=2)
        assert (list(found.scores[:2]), found.cost_fraction, reranker.remembered) == (known, 0.5, 2)
        assert found.order == plain.rank(QUERY, TEXTS, k=2).order
        assert found.scores == pytest.approx(plain.score(QUERY, TEXTS), rel=1e-5)

    def test_another_query_is_another_score(self, plain: Reranker, cache: Cache) -> None:
        with_cache(plain, cache).score(QUERY, TEXTS)
        reranker = with_cache(plain, cache)
        assert reranker.score("where does bread come from?", TEXTS) == plain.score("where does bread come from?", TEXTS)
        assert reranker.remembered == 0

    def test_a_pruned_score_is_not_kept(self, plain: Reranker, cache: Cache) -> None:
        """What a policy cut short is no full score; full ones spare the run."""
        pruned = Reranker(plain.model, policy=Prism(cv=0.0), cache=cache)
        assert pruned.rank(QUERY, TEXTS, k=1).cost_fraction < 1
        asked = with_cache(plain, cache)
        assert (asked.score(QUERY, TEXTS), asked.remembered) == (plain.score(QUERY, TEXTS), 0)
        assert pruned.rank(QUERY, TEXTS, k=1).cost_fraction == 0.0

    def test_a_deadline_mixes_no_full_scores_with_half_ones(self, plain: Reranker, cache: Cache) -> None:
        """In time all comes from the cache or nothing does."""
        reranker = with_cache(plain, cache)
        reranker.score(QUERY, TEXTS[:2])
        late = reranker.rank(QUERY, TEXTS, deadline=0.0)
        assert not late.complete and len(set(late.scores)) == 1
        assert reranker.rank(QUERY, TEXTS[:2], deadline=0.0).complete

    @pytest.mark.parametrize("kept", [b"", b"short", b"\0" * 9, b"\xff" * 8])
    def test_what_is_no_score_is_a_miss(self, plain: Reranker, cache: Cache, kept: bytes) -> None:
        class Broken(MemoryCache):
            def get(self, tenant: str, key: str) -> bytes:
                return kept

        assert with_cache(plain, Broken()).score(QUERY, TEXTS) == plain.score(QUERY, TEXTS)


class TestTenants:
    def test_each_has_its_own(self, plain: Reranker, cache: Cache) -> None:
        """No tenant learns from the time it takes what another one asked."""
        shared = with_cache(plain, cache)
        one, other = shared.of("one"), shared.of("other")
        one.score(QUERY, TEXTS)
        assert (other.score(QUERY, TEXTS), other.remembered) == (plain.score(QUERY, TEXTS), 0)
        assert cache.clear("one") == 4
        assert (one.score(QUERY, TEXTS), one.remembered) == (plain.score(QUERY, TEXTS), 0)
        assert (other.score(QUERY, TEXTS), other.remembered) == (plain.score(QUERY, TEXTS), 4)

    def test_a_late_one_is_loaded_by_its_first_use(self, plain: Reranker, cache: Cache) -> None:
        """Nobody loads it by asking for a tenant's, or for what was remembered."""
        loads: list[int] = []

        def load() -> Reranker:
            loads.append(1)
            return with_cache(plain, cache)

        late = LateReranker(load)
        tenants = [late.of(tenant) for tenant in ("one", "one", "other")]
        assert ([one.remembered for one in tenants], loads) == ([0, 0, 0], [])
        assert len({tuple(one.score(QUERY, TEXTS)) for one in tenants}) == 1
        assert ([one.remembered for one in tenants], loads) == ([0, 4, 0], [1])

    def test_the_shipped_one_takes_a_cache(self, cache: Cache) -> None:
        assert reranker_of(shipped(cache=cache), "t") is not None
        shipped(cache=cache).of("t").score(QUERY, TEXTS)
        assert cache.clear("t") == 4


class TestLoss:
    def test_a_cache_that_goes_in_the_middle_changes_nothing(self, plain: Reranker, valkey: EmbeddedValkey) -> None:
        """Half of the texts were read from it when it is killed."""

        class Dying(RedisCache):
            asked = 0

            def get(self, tenant: str, key: str) -> bytes | None:
                self.asked += 1
                if self.asked == 3:
                    valkey.kill()
                return super().get(tenant, key)

        with_cache(plain, RedisCache(valkey.url)).score(QUERY, TEXTS)
        dying = Dying(valkey.url)
        reranker = with_cache(plain, dying)
        assert reranker.score(QUERY, TEXTS) == pytest.approx(plain.score(QUERY, TEXTS), rel=1e-5)
        assert (reranker.remembered, valkey.running()) == (2, False)
        assert reranker.rank(QUERY, TEXTS).order == plain.rank(QUERY, TEXTS).order
        dying.close()


def test_who_asks_for_the_same_at_once_waits_for_the_first(plain: Reranker, cache: Cache) -> None:
    """Eight threads of three tenants: each tenant's texts are run once."""
    shared = with_cache(plain, cache)
    found: list[Sequence[float]] = []
    views = [shared.of(f"t{place % 3}") for place in range(8)]
    threads = [threading.Thread(target=lambda one=one: found.append(one.score(QUERY, TEXTS))) for one in views]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [plain.score(QUERY, TEXTS)] * 8
    assert sum(one.remembered for one in views) == 4 * (8 - 3)
