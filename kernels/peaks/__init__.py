"""The peaks of this machine, measured: multiply-adds, exponentials and bytes a second. What a roofline needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from genossm.kernels import threads

ARRAY = 1 << 24
"""Numbers in each of the three arrays of the bandwidth measurement: 64 MiB, beyond the caches."""


@dataclass(frozen=True)
class Peaks:
    """A machine's best, all threads together; NaN for what was not measured.

    Attributes:
        multiply_adds: float32 a second (an addition or a multiplication counts as one).
        exponentials: float32 a second, at the accuracy that the kernels need.
        bytes: read or written a second; the triad counts three arrays.
    """

    multiply_adds: float
    exponentials: float
    bytes: float


class Meter:
    """Measures the peaks, a few hundredths of a second each, so that it can stand in every round of a comparison.

    On a GPU it measures the bandwidth of a copy alone: operators there are held against bytes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._source = torch.ones(2, ARRAY, device=device)
        self._target = torch.zeros(ARRAY, device=device)

    def __call__(self) -> Peaks:
        """One measurement with as many threads as torch has now."""
        if self.device.type != "cpu":
            return Peaks(math.nan, math.nan, self._copy())
        from genossm.kernels.peaks import cpu
        from genossm.kernels.vector import LANES

        count, turns, rounds = torch.get_num_threads(), 8_000_000, 20_000
        chains = [np.ones(cpu.CHAINS * LANES, np.float32) for _ in range(count)]
        tables = [np.linspace(-20, 0, cpu.TABLE + LANES, dtype=np.float32) for _ in range(count)]
        arrays = [v.numpy() for v in (self._target, *self._source)]
        share = ARRAY // count // LANES * LANES
        products = _seconds(lambda i: cpu.multiply_adds(chains[i], turns), count)
        exponentials = _seconds(lambda i: cpu.exponentials(tables[i], rounds), count)
        triad = _seconds(lambda i: cpu.triad(*arrays, i * share, (i + 1) * share), count)
        return Peaks(
            count * turns * cpu.CHAINS * LANES / products,
            count * rounds * cpu.TABLE / exponentials,
            3 * 4 * count * share / triad,
        )

    def _copy(self) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._target.copy_(self._source[0])
        end.record()
        torch.cuda.synchronize(self.device)
        return 2 * 4 * ARRAY / (begin.elapsed_time(end) / 1000)


def _seconds(task: Callable[[int], object], count: int) -> float:
    begin = time.perf_counter()
    threads.run(task, count)
    return time.perf_counter() - begin
