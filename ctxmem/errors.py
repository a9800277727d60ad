"""What can go wrong, grouped by what the caller can do about it.

```
CtxmemError
├── ConfigError         fix the settings; raised at start-up only
├── InvalidInput        fix the call; nothing was changed
├── BudgetError         raise the budget: the pinned minimum does not fit
├── NotFound            the id names nothing this tenant can see
├── Conflict            reload and try again: someone else wrote first
├── TransformError      a transform broke a law of the plan
├── StoreError          the database cannot be used now
│   └── StoreFull       free some disk space
├── ModelError          a model or tokenizer is missing or will not load
└── Unavailable         a worker or deadline is out of reach now; try again
```
"""


class CtxmemError(Exception):
    """Every error ctxmem raises on purpose."""

    code = "ctxmem_error"


class ConfigError(CtxmemError):
    """A setting is missing, unknown or contradicts another; raised at start-up only."""

    code = "config_error"


class InvalidInput(CtxmemError, ValueError):
    """The call's arguments are wrong; nothing was changed.

    Attributes:
        param: name of the argument or JSON path at fault, or None.
    """

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class BudgetError(CtxmemError):
    """The pinned minimum alone is larger than the budget.

    Attributes:
        needed: tokens the smallest legal request takes.
        limit: tokens the budget allows.
    """

    code = "budget_too_small"

    def __init__(self, message: str, *, needed: int, limit: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.limit = limit


class NotFound(CtxmemError, LookupError):
    """The id names nothing that this tenant can see."""

    code = "not_found"


class Conflict(CtxmemError):
    """Another writer came first; reload and try again."""

    code = "conflict"


class TransformError(CtxmemError):
    """A transform broke a law of the plan, such as editing a pinned segment."""

    code = "transform_error"


class StoreError(CtxmemError):
    """The database cannot be used now."""

    code = "store_unavailable"


class StoreFull(StoreError):
    """The disk or the database quota is full."""

    code = "store_full"


class ModelError(CtxmemError):
    """A model or tokenizer is missing or will not load; the message says what to install."""

    code = "model_unavailable"


class Unavailable(CtxmemError):
    """A worker is down or a deadline has passed; trying again may work."""

    code = "unavailable"
