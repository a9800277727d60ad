"""How a memory takes in a step: the function g_update of the paper.

One linear recurrence serves both ways of computing: run on key/value tensors it is the write path, run on unit vectors
it gives the weights with which the parallel training forward mixes all steps at once. So the two agree by construction.

Source: arXiv 2312.03414, section 3.1: concatenation, Mem(t) = [Mem(t-1); h(t)], and merging,
Mem(t) = (1 - a_t) Mem(t-1) + a_t h(t) with a_t = 1/t (arithmetic mean) or constant (exponential moving average).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ctxmem.errors import InvalidInput

Mode = Literal["concat", "merge", "ema", "hybrid"]


@dataclass(frozen=True, slots=True)
class Update:
    """A rule by which memory grows or stays.

    A step's states h(t) are one group of slots; the memory is a sequence of groups.

    Attributes:
        mode: `concat` appends h(t); `merge` keeps one group, the mean of all steps; `ema` keeps one, in which older
            steps fade; `hybrid` keeps the newest `bank` steps as they are and the mean of all older ones before them.
        bank: groups that `hybrid` keeps unmerged.
        rate: weight of the newest step in `ema`, in (0, 1].

    Raises:
        InvalidInput: a number is out of range, or there is no such mode.
    """

    mode: Mode = "concat"
    bank: int = 8
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise InvalidInput(f"no memory update {self.mode!r}: {', '.join(get_args(Mode))}", param="mode")
        if self.bank < 1 or not 0 < self.rate <= 1:
            raise InvalidInput(f"bank must be at least 1 and rate in (0, 1]: {self.bank}, {self.rate}", param="bank")

    def step(self, groups: Sequence[Tensor], new: Tensor, t: int) -> tuple[Tensor, ...]:
        """The groups after step `t`, counted from 1.

        Args:
            groups: those after step `t - 1`, each of the shape of `new`.
            new: h(t).
            t: number of this step.
        """
        if self.mode == "concat" or not groups:
            return (*groups, new)
        if self.mode == "hybrid":
            return self._banked((*groups, new), t - self.bank)
        share = 1 / t if self.mode == "merge" else self.rate
        return ((1 - share) * groups[0] + share * new,)

    def _banked(self, groups: tuple[Tensor, ...], merged: int) -> tuple[Tensor, ...]:
        """Fold the second group into the first, which then is the mean of `merged` steps; at first there is none."""
        if merged < 2:
            return groups
        first, second, *bank = groups
        return ((1 - 1 / merged) * first + second / merged, *bank)

    def weights(self, steps: int) -> tuple[Tensor, ...]:
        """For each t from 0 to `steps`, the groups after step t as weights over all steps: (groups, steps) each."""
        groups: tuple[Tensor, ...] = ()
        after = [torch.zeros(0, steps)]
        for t, unit in enumerate(torch.eye(steps), start=1):
            groups = self.step(groups, unit, t)
            after.append(torch.stack(groups))
        return tuple(after)

    def groups(self, steps: int) -> int:
        """How many groups a memory of so many steps has."""
        if self.mode == "concat" or steps == 0:
            return steps
        return min(steps, self.bank + 1) if self.mode == "hybrid" else 1


CONCAT = Update()
"""Memory that grows by one group a step."""
