"""Compressed context memory beside what else fits in the same key/value positions."""
