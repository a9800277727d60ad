"""Labelled texts of which training sees some labels and measurements the others."""

from __future__ import annotations

import json
from pathlib import Path

Texts = dict[str, list[str]]
"""Texts by label."""


def clinc(data: Path) -> tuple[Texts, Texts]:
    """CLINC150: what training may see, and what it may not."""
    return _parted(json.loads((data / "icl_tasks/open/clinc150_small_trainval.json").read_text())["train"])


def banking(data: Path) -> tuple[Texts, Texts]:
    """Banking77: what training may see, and what it may not."""
    lines = (data / "icl_tasks/open/banking77_train.jsonl").read_text().splitlines()
    return _parted([(row["text"], row["category"]) for row in map(json.loads, lines)])


def _parted(pairs: list[tuple[str, str]]) -> tuple[Texts, Texts]:
    """Every fourth label is left out."""
    found: Texts = {}
    for text, label in pairs:
        found.setdefault(label, []).append(text)
    held = set(sorted(found)[::4])
    seen = {label.replace("_", " "): texts for label, texts in found.items() if label not in held}
    return seen, {label.replace("_", " "): found[label] for label in sorted(held)}
