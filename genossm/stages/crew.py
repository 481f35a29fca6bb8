"""Work done side by side: processes that share the cores, and that never outlive who asked."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import torch

from genossm.errors import ExitCode, GenoSSMError
from genossm.kernels.memory import keep_freed_memory

Submit = Callable[..., Callable[[], Any]]
"""Takes a function of a module with its arguments, and gives what waits for its result."""

SECONDS_BETWEEN_LOOKS = 1.0


def begin_worker(threads: int, parent: int) -> None:
    """What a process of the crew does first: take its share of the cores, and end when its parent has.

    Ctrl-C reaches every process of a terminal; what it means is the parent's to say.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    keep_freed_memory()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)


@contextlib.contextmanager
def pool(
    processes: int, initializer: Callable[..., None] = begin_worker, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """Processes that share this one's threads; an error here ends them at once, whatever they do.

    Args:
        initializer: is given the threads of each process, the number of this one, and ``arguments``; calls
            :func:`begin_worker` with the first two.

    Raises:
        GenoSSMError: a process was killed, most often for want of memory.
    """
    threads = max(1, torch.get_num_threads() // processes)
    workers = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer, (threads, os.getpid(), *arguments)
    )
    try:
        yield workers
    except BaseException as error:
        for process in multiprocessing.active_children():
            process.kill()
        workers.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            text = "a worker process was killed, perhaps for want of memory; the same command goes on"
            raise GenoSSMError(text, exit_code=ExitCode.TEMPORARY) from None
        raise
    workers.shutdown()


@contextlib.contextmanager
def crew(processes: int) -> Iterator[Submit]:
    """Calls of functions in several processes, begun at once; with less than two, here, when they are asked for."""
    if processes < 2:
        yield lambda function, *arguments: partial(function, *arguments)
        return
    with pool(processes) as workers:

        def submit(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
            future: Future[Any] = workers.submit(function, *arguments)
            return future.result

        yield submit
