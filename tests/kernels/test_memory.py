"""The allocator's settings, in a process of their own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
from genossm.kernels.memory import keep_freed_memory
taken = keep_freed_memory() if {tuned} else False
import torch
for _ in range(12):
    torch.ones(1 << 23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(1 << 23)
print(taken, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(tuned: bool) -> tuple[bool, int]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(tuned=tuned)], capture_output=True, text=True, check=True
    )
    taken, count = run.stdout.split()
    return taken == "True", int(count)


def test_freed_tensors_are_used_again() -> None:
    """Twenty tensors of 32 MiB, one after the other: no new pages once the process keeps its memory."""
    taken, kept = faults(tuned=True)
    if not taken:  # another C library than glibc
        return
    assert kept < faults(tuned=False)[1] / 10
