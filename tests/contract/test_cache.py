"""What every cache promises: it may forget, it never mixes tenants, and it never raises."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from ctxmem.errors import ConfigError
from ctxmem.ids import new_id
from ctxmem.ports import Cache
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.redis import FIRST_SILENCE, TIMEOUT, RedisCache
from ctxmem.stores.valkey import EmbeddedValkey


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    made = Path(tempfile.mkdtemp(prefix="ctxmem-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def valkey(folder: Path) -> Iterator[EmbeddedValkey]:
    """A running server."""
    server = EmbeddedValkey(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def shared(valkey: EmbeddedValkey) -> Iterator[RedisCache]:
    """A client of the running server."""
    cache = RedisCache(valkey.url)
    yield cache
    cache.close()


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> Cache:
    return MemoryCache() if request.param == "memory" else request.getfixturevalue("shared")


class TestCache:
    def test_a_value_comes_back(self, cache: Cache) -> None:
        """Byte for byte, the last one put."""
        cache.put("t", "k", b"old", ttl=60)
        cache.put("t", "k", b"\x00new\xff", ttl=60)
        assert cache.get("t", "k") == b"\x00new\xff"
        assert cache.get("t", "other") is None

    def test_an_empty_value_is_a_value(self, cache: Cache) -> None:
        """None means unknown, and nothing else does."""
        cache.put("t", "k", b"", ttl=60)
        assert cache.get("t", "k") == b""

    def test_values_expire(self, cache: Cache) -> None:
        """After their time, and at once without any."""
        cache.put("t", "k", b"v", ttl=0.05)
        cache.put("t", "never", b"v", ttl=0)
        assert cache.get("t", "never") is None
        time.sleep(0.1)
        assert cache.get("t", "k") is None

    def test_drop_counts_what_was_there(self, cache: Cache) -> None:
        """And takes it away."""
        for key in ("a", "b"):
            cache.put("t", key, b"v", ttl=60)
        assert cache.drop("t", ["a", "b", "c"]) == 2
        assert cache.get("t", "a") is None
        assert cache.drop("t", ["a"]) == cache.drop("t", []) == 0

    def test_a_tenant_can_be_cleared(self, cache: Cache) -> None:
        """Of any number of keys, and of its own alone, whatever its name looks like to a pattern."""
        for key in range(2500):
            cache.put("t*", f"k{key}", b"v", ttl=60)
        cache.put("t", "k", b"v", ttl=60)
        cache.put("tu", "k", b"v", ttl=60)
        assert cache.clear("t*") == 2500
        assert cache.get("t*", "k0") is None
        assert (cache.get("t", "k"), cache.get("tu", "k")) == (b"v", b"v")
        assert cache.clear("t*") == 0

    def test_tenants_have_their_own_keys(self, cache: Cache) -> None:
        """Equal keys of two tenants are two keys."""
        cache.put("t", "k", b"v", ttl=60)
        assert cache.get("u", "k") is None
        assert cache.drop("u", ["k"]) == 0
        assert cache.get("t", "k") == b"v"

    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(names=st.lists(st.text("a:{}%é\ud800", max_size=4), min_size=4, max_size=4))
    def test_no_choice_of_names_makes_two_tenants_meet(self, cache: Cache, names: list[str]) -> None:
        """Names may hold braces, colons, even lone surrogates."""
        first, second = (names[0], names[1]), (names[2], names[3])
        cache.put(*first, b"mine", ttl=60)
        assert cache.get(*first) == b"mine"
        assert (cache.get(*second) is None) == (first != second)
        cache.drop(names[0], [names[1]])


class TestAway:
    def test_a_server_that_was_never_there_costs_nothing(self, folder: Path) -> None:
        """Every call does what an empty cache does."""
        cache = RedisCache(f"unix://{folder}/nobody.sock")
        for _ in range(5):
            cache.put("t", "k", b"v", ttl=60)
            assert cache.get("t", "k") is None
            assert cache.drop("t", ["k"]) == cache.clear("t") == 0
        cache.close()

    def test_a_server_that_hangs_costs_one_timeout(self, valkey: EmbeddedValkey, shared: RedisCache) -> None:
        """The first call waits, the others do not; once it wakes it is used again."""
        shared.put("t", "k", b"v", ttl=60)
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGSTOP)
        started = time.monotonic()
        assert [shared.get("t", "k") for _ in range(200)] == [None] * 200
        assert time.monotonic() - started < 5 * TIMEOUT  # 200 time-outs would take 40 s
        os.kill(valkey.pid, signal.SIGCONT)
        time.sleep(FIRST_SILENCE + 0.05)
        assert shared.get("t", "k") == b"v"

    def test_a_server_that_was_killed_is_found_again(self, valkey: EmbeddedValkey, shared: RedisCache) -> None:
        """Empty, as a cache may be."""
        shared.put("t", "k", b"v", ttl=60)
        valkey.kill()
        assert not valkey.running()
        assert [shared.get("t", "k") for _ in range(5)] == [None] * 5
        valkey.start()
        time.sleep(FIRST_SILENCE + 0.05)
        assert shared.get("t", "k") is None
        shared.put("t", "k", b"again", ttl=60)
        assert shared.get("t", "k") == b"again"

    def test_a_server_that_was_flushed_has_forgotten(self, valkey: EmbeddedValkey, shared: RedisCache) -> None:
        """And goes on."""
        shared.put("t", "k", b"v", ttl=60)
        with Redis.from_url(valkey.url) as admin:
            admin.flushall()
        assert shared.get("t", "k") is None
        shared.put("t", "k", b"new", ttl=60)
        assert shared.get("t", "k") == b"new"

    def test_erasing_asks_a_server_that_was_away(self, valkey: EmbeddedValkey, shared: RedisCache) -> None:
        """Even while others leave it alone, so that what is erased does not come back."""
        shared.put("t", "k", b"v", ttl=60)
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGSTOP)
        assert shared.get("t", "k") is None
        os.kill(valkey.pid, signal.SIGCONT)
        assert shared.drop("t", ["k"]) == 1

    def test_clearing_asks_it_too(self, valkey: EmbeddedValkey, shared: RedisCache) -> None:
        """For the same reason."""
        shared.put("t", "k", b"v", ttl=60)
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGSTOP)
        assert shared.get("t", "k") is None
        os.kill(valkey.pid, signal.SIGCONT)
        assert shared.clear("t") == 1

    @pytest.mark.parametrize("url", ["", "nonsense", "http://localhost"])
    def test_a_url_that_is_none_is_refused_at_the_start(self, url: str) -> None:
        """With what is wrong."""
        with pytest.raises(ConfigError):
            RedisCache(url)


def test_a_full_server_makes_room(valkey: EmbeddedValkey, shared: RedisCache) -> None:
    """The newest value is there, whatever went before."""
    with Redis.from_url(valkey.url) as admin:
        admin.config_set("maxmemory", "8mb")
    tenant = new_id("tenant")
    for i in range(40):
        shared.put(tenant, f"k{i}", os.urandom(1_000_000), ttl=60)
        assert shared.get(tenant, f"k{i}") is not None
    assert shared.get(tenant, "k0") is None
