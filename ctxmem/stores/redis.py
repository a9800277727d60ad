"""A cache in Redis or Valkey, shared by all processes and machines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from typing import TypeVar, cast
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, TimeoutError
from redis.retry import Retry

from ctxmem.errors import ConfigError
from ctxmem.ports import Cache

T = TypeVar("T")

TIMEOUT = 0.2
"""Seconds that one call may take."""
FAILURES = 3
"""Failures in a row after which the server is taken to be away; a call that timed out counts as that many."""
FIRST_SILENCE = 2.0
"""Seconds before a server that is away is tried again."""
LONGEST_SILENCE = 30.0
"""Seconds that the silence may grow to by doubling."""

_SCANNED = 1000  # keys that the server looks at in one step of a scan


class RedisCache(Cache):
    """Never raises and never retries: a server that is away costs one timeout, then nothing. Safe for threads."""

    def __init__(self, url: str) -> None:
        """A client of a server, which need not be up.

        Args:
            url: `redis://…`, `rediss://…` or `unix:///path`.

        Raises:
            ConfigError: the URL is none of these.
        """
        try:
            self._redis = Redis.from_url(
                url,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                protocol=2,
                driver_info=None,
            )
        except ValueError as error:
            raise ConfigError(f"not a Redis URL: {error}") from error
        self._breaker = Breaker()

    def get(self, tenant: str, key: str) -> bytes | None:
        return self._ask(lambda: cast("bytes | None", self._redis.get(_name(tenant, key))), None)

    def put(self, tenant: str, key: str, value: bytes, *, ttl: float) -> None:
        milliseconds = int(ttl * 1000)
        if milliseconds > 0:
            self._ask(lambda: self._redis.set(_name(tenant, key), value, px=milliseconds), None)

    def drop(self, tenant: str, keys: Sequence[str]) -> int:
        """Forget the keys, asking the server even when it is taken to be away: what is erased should not come back."""
        names = [_name(tenant, key) for key in keys]
        return self._ask(lambda: self._redis.unlink(*names), 0, always=True) if names else 0

    def clear(self, tenant: str) -> int:
        """Forget all keys of the tenant, asking the server even when it is taken to be away."""
        return self._ask(lambda: self._cleared(_name(tenant, "*")), 0, always=True)

    def _cleared(self, pattern: bytes) -> int:
        """Unlink the keys that match, some at a time: one that is put meanwhile may be missed."""
        found = self._redis.scan_iter(pattern, count=_SCANNED)
        gone = 0
        while some := list(islice(found, _SCANNED)):
            gone += self._redis.unlink(*some)
        return gone

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()

    def _ask(self, call: Callable[[], T], otherwise: T, *, always: bool = False) -> T:
        """The answer of the server, or `otherwise` when there is none."""
        if not (self._breaker.allows() or always):
            return otherwise
        try:
            answer = call()
        except TimeoutError:
            self._breaker.failed(FAILURES)
        except (RedisError, OSError):
            self._breaker.failed(1)
        else:
            self._breaker.succeeded()
            return answer
        return otherwise


class Breaker:
    """Says whether a server is worth asking. Once its silence is over it lets one caller try while others wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """A breaker that lets calls through.

        Args:
            clock: seconds, never going back.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._silence = FIRST_SILENCE
        self._until = 0.0

    def allows(self) -> bool:
        """Whether to ask now."""
        if self._failures < FAILURES:
            return True
        with self._lock:
            now = self._clock()
            if now < self._until:
                return False
            self._until = now + self._silence  # the others wait for this caller's answer
            return True

    def failed(self, weight: int) -> None:
        """A call failed; heavy failures silence at once."""
        with self._lock:
            was_away = self._failures >= FAILURES
            self._failures += weight
            if self._failures >= FAILURES:
                self._silence = min(2 * self._silence, LONGEST_SILENCE) if was_away else FIRST_SILENCE
                self._until = self._clock() + self._silence

    def succeeded(self) -> None:
        """The server answered."""
        if self._failures:
            with self._lock:
                self._failures = 0


def _name(tenant: str, key: str) -> bytes:
    """The server's name of a key. The hash tag keeps a tenant's keys on one node of a cluster."""
    return b"{t:%s}:%s" % (_tag(tenant), key.encode("utf-8", "surrogatepass"))


@lru_cache(maxsize=1024)
def _tag(tenant: str) -> bytes:
    """The tenant without braces or wildcards, so that no two tenants can ever make one name or pattern."""
    return quote(tenant, safe="", errors="surrogatepass").encode()
