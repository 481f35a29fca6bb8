"""One sample: seconds of a pass, and the memory that it takes beyond what was there, on a CPU or a GPU."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from genossm.kernels.benchmark import Problem

_PROC = Path("/proc/self")


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Seconds until ``run`` is done; on a GPU between two of its events."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return float(begin.elapsed_time(end)) / 1000
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def sample(problem: Problem, pass_: str, device: torch.device) -> dict[str, float]:
    """Seconds by the name of the pass; ``training`` gives ``backward`` too."""
    if pass_ == "step":
        return {"step": seconds_of(problem.run, device)}
    if pass_ == "forward":
        with torch.no_grad():
            return {"forward": seconds_of(problem.run, device)}
    outputs: list[Tensor] = []

    def forward() -> None:
        given = problem.run()
        outputs.extend(v for v in (given if isinstance(given, tuple) else (given,)) if v.requires_grad)

    there = seconds_of(forward, device)
    ones = [torch.ones_like(v) for v in outputs]
    back = seconds_of(lambda: torch.autograd.grad(outputs, problem.leaves, ones, allow_unused=True), device)
    return {"training": there + back, "backward": back}


def memory_of(run: Callable[[], object], device: torch.device) -> float:
    """The most bytes that ``run`` holds beyond what was there before it; NaN where the system does not say."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return float(torch.cuda.max_memory_allocated(device) - before)
    if not sys.platform.startswith("linux"):
        run()
        return float("nan")
    give_back_memory()
    try:
        (_PROC / "clear_refs").write_text("5")  # the high-water mark starts again from here
    except OSError:
        run()
        return float("nan")
    before = _status("VmRSS")
    run()
    return float(_status("VmHWM") - before)


def give_back_memory() -> None:
    """Hand what the C allocator keeps back to the system, so that the next use of it is seen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _status(name: str) -> int:
    for line in (_PROC / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def available_memory(device: torch.device) -> float:
    """Bytes that can still be taken; infinite where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    if free is None:
        return float("inf")
    limit, used = (_cgroup(name) for name in ("memory.max", "memory.current"))
    return float(free if limit is None or used is None else min(free, limit - used))


def _cgroup(name: str) -> int | None:
    """A figure of this container's own limits."""
    try:
        text = (Path("/sys/fs/cgroup") / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
