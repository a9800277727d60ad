"""The cache in the process: bounded by bytes, oldest use out first."""

from __future__ import annotations

from ctxmem.stores.memory import MemoryCache

ENTRY = len("t") + len("k0") + 10
"""Bytes of an entry of these tests."""


def test_what_was_not_used_for_longest_makes_room() -> None:
    """Reading counts as use."""
    cache = MemoryCache(room=3 * ENTRY)
    for key in ("k0", "k1", "k2"):
        cache.put("t", key, b"x" * 10, ttl=60)
    assert cache.get("t", "k0") is not None
    cache.put("t", "k3", b"x" * 10, ttl=60)
    assert [key for key in ("k0", "k1", "k2", "k3") if cache.get("t", key)] == ["k0", "k2", "k3"]


def test_a_value_larger_than_the_room_is_not_kept() -> None:
    """And takes nothing else with it but what it replaces."""
    cache = MemoryCache(room=100)
    cache.put("t", "k0", b"small", ttl=60)
    cache.put("t", "k1", b"x" * 200, ttl=60)
    assert cache.get("t", "k0") == b"small"
    cache.put("t", "k0", b"x" * 200, ttl=60)
    assert cache.get("t", "k0") is None


def test_replacing_and_dropping_give_the_room_back() -> None:
    """However often."""
    cache = MemoryCache(room=2 * ENTRY)
    for _ in range(100):
        cache.put("t", "k0", b"x" * 10, ttl=60)
        cache.drop("t", ["k1"])
        cache.put("t", "k1", b"x" * 10, ttl=60)
    assert cache.get("t", "k0")
    assert cache.get("t", "k1")


def test_expiry_follows_the_clock() -> None:
    """To the second it was given."""
    now = [0.0]
    cache = MemoryCache(clock=lambda: now[0])
    cache.put("t", "k", b"v", ttl=5)
    now[0] = 4.9
    assert cache.get("t", "k") == b"v"
    now[0] = 5.0
    assert cache.get("t", "k") is None
