"""Benchmarks of ctxmem: ratios between candidates of one run, never absolute claims."""
