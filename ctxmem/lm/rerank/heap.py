"""Has the C library give freed blocks back to the system at once, where it would keep them.

glibc raises the size from which it maps a block of its own as such blocks are freed (`mallopt(3)`, dynamic mmap
threshold); what lies below is taken from a heap that cannot shrink past its last block in use. A stream of layers
then holds twice what it works with.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

BLOCK = 256 * 1024
"""Bytes from which a block is mapped, and given back when it is freed."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h


@cache
def give_back() -> bool:
    """Set it for the whole process, once; false where the C library is not glibc and nothing was done."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, BLOCK) and mallopt(_TRIM_THRESHOLD, BLOCK))
