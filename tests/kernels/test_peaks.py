"""The peaks of the machine: what the loops compute, and that they take the time that their work takes."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from genossm.kernels.peaks import Meter, cpu
from genossm.kernels.vector import LANES


def test_the_loops_do_what_they_are_counted_for() -> None:
    chains = np.arange(cpu.CHAINS * LANES, dtype=np.float32)
    wanted = chains.reshape(cpu.CHAINS, LANES).astype(np.float64)
    for _ in range(5):
        wanted = wanted * np.float64(np.float32(0.999)) + np.float64(np.float32(0.001))
    cpu.multiply_adds(chains, 5)
    np.testing.assert_allclose(chains[:LANES], wanted.sum(0), rtol=1e-6)

    table = np.linspace(-20, 0, cpu.TABLE + LANES, dtype=np.float32)
    wanted = 3 * np.exp2(table[: cpu.TABLE].astype(np.float64)).reshape(-1, LANES).sum(0)
    cpu.exponentials(table, 3)
    np.testing.assert_allclose(table[cpu.TABLE :], wanted, rtol=1e-5)

    a, b, c = np.zeros(8 * LANES, np.float32), np.arange(8 * LANES, dtype=np.float32), np.ones(8 * LANES, np.float32)
    cpu.triad(a, b, c, 2 * LANES, 8 * LANES)
    np.testing.assert_array_equal(a, np.where(np.arange(8 * LANES) < 2 * LANES, 0, 3 * b + c))


def test_the_peaks_are_those_of_a_computer() -> None:
    meter = Meter(torch.device("cpu"))
    meter()
    peaks = meter()
    assert 1e8 < peaks.bytes < 1e13
    assert 1e8 < peaks.exponentials < peaks.multiply_adds < 1e14


@pytest.mark.parametrize("loop", ["multiply_adds", "exponentials"])
def test_more_rounds_take_more_time(loop: str) -> None:
    """Nothing is taken out of the loop: ten times the work takes at least four times as long, best of a few."""
    values = np.linspace(-20, 0, max(cpu.CHAINS * LANES, cpu.TABLE + LANES), dtype=np.float32)
    run, rounds = getattr(cpu, loop), {"multiply_adds": 400_000, "exponentials": 800}[loop]

    def seconds(times: int) -> float:
        taken = []
        for _ in range(5):
            begun = time.perf_counter()
            run(values, times)
            taken.append(time.perf_counter() - begun)
        return min(taken)

    seconds(1)
    assert seconds(10 * rounds) > 4 * seconds(rounds)
