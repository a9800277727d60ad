"""Search in more vectors than memory should hold, exact and with lookahead; see `index`, `certify` and `lookahead`."""

KEPT = 50_000
"""Vectors that stay in memory before most are written to the disk: up to there nothing is faster than a product."""

HOT_BYTES = 512 * 2**20
"""Bytes of vectors that a hot tier holds at most, unless the caller says otherwise."""
