"""Threads for the CPU kernels: plain Python threads around compiled code that holds no lock.

The work is cut by shape alone, never by the number of threads, so results do not depend on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_pool: ThreadPoolExecutor | None = None
_size = 0


def run(task: Callable[[int], object], count: int) -> None:
    """Call ``task(0)`` ... ``task(count - 1)``, on as many threads as torch uses; the caller takes its share."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        for index in range(count):
            task(index)
        return
    left = iter(range(count))  # next() on it is atomic: every index is taken once

    def work() -> None:
        for index in left:
            task(index)

    others = [_executor(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()


def _executor(size: int) -> ThreadPoolExecutor:
    global _pool, _size
    if _pool is None or _size < size:
        _pool, _size = ThreadPoolExecutor(size, thread_name_prefix="genossm-kernel"), size
    return _pool


def _forget() -> None:
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget)
