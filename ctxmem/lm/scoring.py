"""Self-information of texts under a causal language model, as functions of tensors.

Source: Li et al., "Compressing Context to Enhance Inference Efficiency of Large Language Models" (EMNLP 2023),
section 3.1: I(x_i) = -ln P(x_i | x_<i). Unlike the paper's code, texts longer than a window are read in overlapping
windows, and the logits of the whole text are never held at once.

Worked example: 5 tokens, a window of 4 and an overlap of 2 give the rows [0:4] and [2:5]; the second reads tokens
2 and 3 as context only and scores token 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

HEAD_ROWS = 256
"""Positions whose logits are held at once: 256 x 49,152 x 2 bytes = 25 MB in bf16."""

SUM_ROWS = 8
"""Positions whose logits are summed in fp32 at once: 8 x 49,152 x 4 bytes = 1.6 MB, which stays near the processor."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stretch of one text's tokens that is read in one forward pass, after the start token.

    Attributes:
        text: index of the text.
        start: first token read.
        fresh: first token scored; those before it are context.
        stop: token after the last.
    """

    text: int
    start: int
    fresh: int
    stop: int

    @property
    def length(self) -> int:
        """Positions fed to the model: the start token and all tokens but the last."""
        return self.stop - self.start


def rows(lengths: Sequence[int], *, window: int, overlap: int) -> list[Row]:
    """Cut texts of the given lengths (in tokens) into rows that score each token once.

    Args:
        lengths: tokens of each text.
        window: most tokens in a row.
        overlap: tokens of context that a row after the first reads again.
    """
    cut = []
    for text, length in enumerate(lengths):
        fresh = 0
        while fresh < length:
            start = max(0, fresh - overlap)
            stop = min(length, start + window)
            cut.append(Row(text, start, fresh, stop))
            fresh = stop
    return cut


def batches(rows: Sequence[Row], *, positions: int) -> list[list[Row]]:
    """Group rows of like length, longest first, so that a padded batch has at most `positions` positions.

    A row that is longer than that alone makes a batch of its own.
    """
    grouped: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: -row.length):
        if grouped and (len(grouped[-1]) + 1) * grouped[-1][0].length <= positions:
            grouped[-1].append(row)
        else:
            grouped.append([row])
    return grouped


def padded(batch: Sequence[Row], ids: Sequence[Sequence[int]], *, first: int) -> Tensor:
    """Model input of a batch: the start token, then each row's tokens but the last, padded on the right.

    Padding needs no mask: a causal model's positions never see what is to their right.

    Args:
        batch: rows, the longest first.
        ids: token ids of every text.
        first: the start token, also used as padding.

    Returns:
        (batch, longest row) int64.
    """
    longest = batch[0].length
    lines = [[first, *ids[row.text][row.start : row.stop - 1]] for row in batch]
    return torch.tensor([line + [first] * (longest - len(line)) for line in lines])


def self_information(hidden: Tensor, targets: Tensor, head: nn.Module, *, block: int = HEAD_ROWS) -> Tensor:
    """-ln P(target | hidden state), in nats.

    Args:
        hidden: (n, width) last hidden states.
        targets: (n,) ids of the tokens that came next.
        head: maps hidden states to logits.
        block: positions whose (block, vocab) logits are held at once.

    Returns:
        (n,) float32.
    """
    nats = []
    for at in range(0, len(targets), block):
        logits = head(hidden[at : at + block])  # (block, vocab)
        chosen = logits.gather(1, targets[at : at + block, None]).squeeze(1).float()
        sums = [torch.logsumexp(part.float(), dim=1) for part in logits.split(SUM_ROWS)]
        nats.append(torch.cat(sums) - chosen)
    return torch.cat(nats)


def read(body: nn.Module, head: nn.Module, batch: Sequence[Row], ids: Sequence[Sequence[int]], *, first: int) -> Tensor:
    """Self-information of every fresh token of a batch, row after row.

    Args:
        body: the language model without its head.
        head: maps hidden states to logits.
        batch: rows, the longest first.
        ids: token ids of every text.
        first: the start token.

    Returns:
        (fresh tokens of the batch,) float32 nats.
    """
    states = body(input_ids=padded(batch, ids, first=first), use_cache=False).last_hidden_state  # (B, T, width)
    fresh = [states[line, row.fresh - row.start : row.length] for line, row in enumerate(batch)]
    targets = [token for row in batch for token in ids[row.text][row.fresh : row.stop]]
    return self_information(torch.cat(fresh), torch.tensor(targets), head)


def fresh_slices(batch: Sequence[Row]) -> Iterator[tuple[Row, slice]]:
    """Each row with the place of its scores in what `read` returns."""
    at = 0
    for row in batch:
        size = row.stop - row.fresh
        yield row, slice(at, at + size)
        at += size
