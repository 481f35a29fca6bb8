"""The C allocator, set so that large tensors are used again instead of being given back to the system.

By default glibc returns every large block at once, and the next one costs a page fault for each 4 KiB: about half
of the time of a memory-bound operator. The price is that a process keeps its peak.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP = 2**31 - 1
_GROW_BY = 64 << 20


def keep_freed_memory() -> bool:
    """Make this process keep what it frees (glibc only); call it before the first large tensor.

    Returns:
        Whether the allocator took the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP), (_M_TOP_PAD, _GROW_BY))
    return all(mallopt(name, value) == 1 for name, value in settings)
