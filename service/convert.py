"""`python -m service.convert MODEL CACHE_DIR`: convert a packaged model once, in a process that ends afterwards.

The supervisor runs this on the first start, so that neither it nor the model worker keeps the memory it takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ctxmem import models
from ctxmem.errors import CtxmemError

_DONE = 1.0


def is_due(model: str, cache_dir: Path) -> bool:
    """Whether the model comes as a package and its converted form is not in the cache folder yet."""
    return models.is_packaged(model) and not (models.home(model, cache_dir) / "model.safetensors").exists()


def main(model: str, cache_dir: Path) -> int:
    """Convert the model, with one line of progress on standard error; returns the exit code."""
    from ctxmem.lm.loading import model_folder

    again, last = ("\r\x1b[K", "") if sys.stderr.isatty() else ("", "\n")

    def show(stage: str, share: float) -> None:
        end = "\n" if share >= _DONE else last
        sys.stderr.write(f"{again}ctxmem: first start, preparing {model} once: {stage} ({share:.0%}){end}")
        sys.stderr.flush()

    try:
        model_folder(model, cache_dir=cache_dir, progress=show)
    except CtxmemError as error:
        sys.stderr.write(f"\nctxmem: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
