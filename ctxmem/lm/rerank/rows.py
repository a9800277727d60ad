"""Rows that the reranker is trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ctxmem.errors import InvalidInput
from ctxmem.lm.text import Tokenizer


@dataclass(frozen=True, slots=True)
class Row:
    """One query with its right and its misleading documents, as token ids without marks."""

    group: str
    query: tuple[int, ...]
    positives: tuple[tuple[int, ...], ...]
    negatives: tuple[tuple[int, ...], ...]


def read_rows(path: Path, tokenizer: Tokenizer, *, longest: int) -> list[Row]:
    """Rows of a JSON-lines file: `{"query", "positives": [...], "negatives": [...], "set"?}`.

    Raises:
        InvalidInput: a line is not such a row; the message names it.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            raw = json.loads(line)
            query, right, wrong = raw["query"], list(raw["positives"]), list(raw["negatives"])
            tokens = [one.ids for one in tokenizer.encode([query, *right, *wrong])]
        except (ValueError, LookupError, TypeError) as error:
            raise InvalidInput(f"{path}, line {number} is no training row: {error!r}") from error
        if not right or not wrong:
            continue
        cut = [ids[:longest] for ids in tokens[1:]]
        rows.append(Row(str(raw.get("set", "")), tokens[0][:48], tuple(cut[: len(right)]), tuple(cut[len(right) :])))
    if not rows:
        raise InvalidInput(f"{path} holds no row with a right and a wrong document")
    return rows


def token_rarity(rows: Sequence[Row], vocabulary: int) -> Tensor:
    """(vocabulary,) inverse document frequency of each token over the rows' documents, at least 0.05."""
    seen = {document for row in rows for document in (*row.positives, *row.negatives)}
    counts = torch.zeros(vocabulary)
    for document in seen:
        counts[list(set(document))] += 1
    return torch.log((len(seen) + 1) / (counts + 0.5)).clamp(min=0.05)
