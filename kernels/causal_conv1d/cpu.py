"""The short depthwise convolution on a CPU, float32, channels last: numba with explicit SIMD, one lane a channel.

A task is one batch row and a block of channels, in one pass over the sequence; the reverse direction is a negative
step. ``since`` counts the tokens since a segment's first one, up to width - 1: tap k is open where k <= since.
"""

from __future__ import annotations

import numpy as np

from genossm.kernels.vector import LANES, compiled, fma, load, sigmoid, splat, store

ZERO = np.float32(0.0)
ONE = np.float32(1.0)


@compiled
def _sum_of_taps(
    x, weight, bias, taps, has_taps, mask, has_mask, x0, xs, m0, ms, h0, dim, channel, t, open_taps, width
):
    """bias + sum_k weight_k x_{t-k} for one group of lanes; taps[h0 + (t - k)] stand before the first token."""
    acc = load(bias, channel)
    for k in range(min(open_taps, width - 1) + 1):
        s = t - k
        if s >= 0:
            if not (has_mask and mask[m0 + s * ms] == 0):
                acc = fma(load(weight, k * dim + channel), load(x, x0 + s * xs), acc)
        elif has_taps:
            acc = fma(load(weight, k * dim + channel), load(taps, h0 + s * dim), acc)
    return acc


@compiled
def forward_task(
    x, weight, bias, taps, mask, since, y, xs, ys, ms, x0, y0, m0, h0, dim, channel, groups, width, seqlen,
    has_taps, has_mask, has_since, silu,
):  # fmt: skip
    """One task of the forward pass; ``taps`` is in reading order, h0 just behind its last entry."""
    for t in range(seqlen):
        open_taps = width - 1
        if has_since:
            open_taps = int(since[m0 + t * ms])
        for g in range(groups):
            c = g * LANES
            acc = _sum_of_taps(
                x, weight, bias, taps, has_taps, mask, has_mask, x0 + c, xs, m0, ms, h0 + c, dim, channel + c, t,
                open_taps, width,
            )  # fmt: skip
            if silu:
                acc = acc * sigmoid(acc)
            store(y, y0 + t * ys + c, acc)


@compiled
def backward_task(
    x, weight, bias, taps, mask, since, dy, dx, dtaps, dweight, dbias, xs, dys, dxs, ms, x0, dy0, dx0, m0, h0, w0,
    dim, channel, groups, width, seqlen, has_taps, has_mask, has_since, silu,
):  # fmt: skip
    """One task of the backward pass.

    dx first holds the slopes before the activation; a token's own gradient needs those of the width - 1 tokens
    after it only, so it replaces its slope as soon as they are there.
    """
    for t in range(seqlen + width - 1):
        if t < seqlen:
            open_taps = width - 1
            if has_since:
                open_taps = int(since[m0 + t * ms])
            for g in range(groups):
                c = g * LANES
                slope = load(dy, dy0 + t * dys + c)
                if silu:
                    acc = _sum_of_taps(
                        x, weight, bias, taps, has_taps, mask, has_mask, x0 + c, xs, m0, ms, h0 + c, dim, channel + c,
                        t, open_taps, width,
                    )  # fmt: skip
                    s = sigmoid(acc)
                    slope = slope * (s * fma(acc, splat(ONE) - s, splat(ONE)))
                store(dx, dx0 + t * dxs + c, slope)
                store(dbias, w0 + c, load(dbias, w0 + c) + slope)
                for k in range(min(open_taps, width - 1) + 1):
                    s0 = t - k
                    w = w0 * width + k * groups * LANES + c
                    if s0 >= 0:
                        if not (has_mask and mask[m0 + s0 * ms] == 0):
                            store(dweight, w, fma(slope, load(x, x0 + s0 * xs + c), load(dweight, w)))
                    elif has_taps:
                        h = h0 + s0 * dim + c
                        store(dweight, w, fma(slope, load(taps, h), load(dweight, w)))
                        store(dtaps, h, fma(slope, load(weight, k * dim + channel + c), load(dtaps, h)))
        first = t - (width - 1)
        if first >= 0:
            masked = has_mask and mask[m0 + first * ms] == 0
            for g in range(groups):
                c = g * LANES
                acc = splat(ZERO)
                if not masked:
                    for k in range(min(width, seqlen - first)):
                        if not has_since or int(since[m0 + (first + k) * ms]) >= k:
                            slope = load(dx, dx0 + (first + k) * dxs + c)
                            acc = fma(load(weight, k * dim + channel + c), slope, acc)
                store(dx, dx0 + first * dxs + c, acc)
