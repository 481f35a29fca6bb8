"""What this CPU can do at best, in explicit SIMD: the three loops that a roofline is drawn from."""

from __future__ import annotations

import numpy as np

from genossm.kernels.vector import LANES, compiled, decay, fma, load, splat, store

CHAINS = 10
"""Independent multiply-adds of a turn: more than latency times units, few enough for 16 registers."""

TABLE = 4096
"""Arguments of the exponentials: they stay in the first cache level."""


@compiled
def multiply_adds(values, rounds):
    """``rounds`` turns of CHAINS multiply-adds on vectors; values float32 (CHAINS * LANES,)."""
    a, b, c = load(values, 0), load(values, LANES), load(values, 2 * LANES)
    d, e, f = load(values, 3 * LANES), load(values, 4 * LANES), load(values, 5 * LANES)
    g, h = load(values, 6 * LANES), load(values, 7 * LANES)
    i, j = load(values, 8 * LANES), load(values, 9 * LANES)
    factor, term = splat(np.float32(0.999)), splat(np.float32(0.001))
    for _ in range(rounds):
        a, b, c = fma(a, factor, term), fma(b, factor, term), fma(c, factor, term)
        d, e, f = fma(d, factor, term), fma(e, factor, term), fma(f, factor, term)
        g, h = fma(g, factor, term), fma(h, factor, term)
        i, j = fma(i, factor, term), fma(j, factor, term)
    store(values, 0, a + b + c + d + e + f + g + h + i + j)


@compiled
def exponentials(values, rounds):
    """2**x of a table of TABLE numbers, ``rounds`` times over, summed; values float32 (TABLE + LANES,)."""
    zero = splat(np.float32(0.0))
    a, b, c, d = zero, zero, zero, zero
    for _ in range(rounds):
        for i in range(0, TABLE, 4 * LANES):
            a = a + decay(load(values, i))
            b = b + decay(load(values, i + LANES))
            c = c + decay(load(values, i + 2 * LANES))
            d = d + decay(load(values, i + 3 * LANES))
    store(values, TABLE, a + b + c + d)


@compiled
def triad(a, b, c, begin, end):
    """a = 3 b + c over [begin, end) of arrays that no cache holds."""
    factor = splat(np.float32(3.0))
    for i in range(begin, end, LANES):
        store(a, i, fma(load(b, i), factor, load(c, i)))
