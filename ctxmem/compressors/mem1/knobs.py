"""What can be set on a memory: budgets, mode, cadence."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctxmem.compressors.mem1.cadence import Cadence, cadence
from ctxmem.compressors.mem1.prompts import Mode
from ctxmem.errors import InvalidInput
from ctxmem.ledger import CacheTerms


@dataclass(frozen=True, slots=True)
class Knobs:
    """How a memory is kept.

    Attributes:
        mode: `patch` (operations) or `rewrite` (the paper's).
        b_state: tokens the rendered state may take, goal and pins included.
        b_obs: tokens of one observation that are shown; the middle of longer ones is cut and can be recalled.
        cadence: `every_turn`, `every=k`, `tokens>w` or `auto`.
        max_out: tokens of one answer of the model.
        b_recall: tokens of recalled text that may ride along; 0 for none.
        terms: how the upstream prices its prompt cache, for `auto`.
        output_price: an output token in uncached input tokens, for `auto`.

    Raises:
        InvalidInput: a knob is out of range.
    """

    mode: Mode = "patch"
    b_state: int = 1200
    b_obs: int = 900
    cadence: str = "auto"
    max_out: int = 512
    b_recall: int = 256
    terms: CacheTerms = field(default_factory=CacheTerms)
    output_price: float = 5.0

    def __post_init__(self) -> None:
        if self.mode not in ("patch", "rewrite"):
            raise InvalidInput(f"mode must be patch or rewrite, got {self.mode!r}", param="mode")
        for name, least in (("b_obs", 16), ("max_out", 1), ("b_recall", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInput(f"{name} must be {least} tokens or more, got {value!r}", param=name)
        self.when()

    def when(self) -> Cadence:
        """The cadence as a rule."""
        return cadence(self.cadence, cap=2 * self.b_state, terms=self.terms, output=self.output_price)
