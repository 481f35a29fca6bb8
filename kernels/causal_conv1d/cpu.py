"""The short depthwise convolution on a CPU, float32, channels last: numba with explicit SIMD, one lane a channel.

A task is one batch row and a block of channels, in one pass over the sequence; the reverse direction is a negative
step. ``since`` counts the tokens since a segment's first one, up to width - 1: tap k is open where k <= since.
Tokens that see all of four taps inside the sequence, nearly all of them in practice, go without any question per tap.
"""

from __future__ import annotations

import numpy as np

from genossm.kernels.vector import LANES, compiled, fma, load, prefetch, sigmoid, splat, store

ZERO = np.float32(0.0)
ONE = np.float32(1.0)

AHEAD = 16
"""Tokens between asking for a row and using it: rows of a channel block lie too far apart for the hardware to guess."""
LINE = 16


@compiled
def _ask(array, start, step, t, seqlen, width):
    """Ask for the row of token t + AHEAD, ``width`` numbers."""
    if t + AHEAD < seqlen:
        for c in range(0, width, LINE):
            prefetch(array, start + (t + AHEAD) * step + c)


@compiled
def _four_taps(x, weight, bias, x0, xs, dim, channel):
    """bias + sum_k weight_k x_{t-k} over four open taps for one group of lanes; x0 is where x_t stands."""
    acc = fma(load(weight, channel), load(x, x0), load(bias, channel))
    acc = fma(load(weight, dim + channel), load(x, x0 - xs), acc)
    acc = fma(load(weight, 2 * dim + channel), load(x, x0 - 2 * xs), acc)
    return fma(load(weight, 3 * dim + channel), load(x, x0 - 3 * xs), acc)


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
        _ask(x, x0, xs, t, seqlen, groups * LANES)
        _ask(y, y0, ys, t, seqlen, groups * LANES)
        open_taps = width - 1
        if has_since:
            open_taps = int(since[m0 + t * ms])
        whole = width == 4 and t >= 3 and open_taps == 3 and not has_mask
        for g in range(groups):
            c = g * LANES
            if whole:
                acc = _four_taps(x, weight, bias, x0 + t * xs + c, xs, dim, channel + c)
            else:
                acc = _sum_of_taps(
                    x, weight, bias, taps, has_taps, mask, has_mask, x0 + c, xs, m0, ms, h0 + c, dim, channel + c, t,
                    open_taps, width,
                )  # fmt: skip
            if silu:
                acc = acc * sigmoid(acc)
            store(y, y0 + t * ys + c, acc)


@compiled
def _slopes_of_four(x, weight, bias, dy, dx, dweight, dbias, x0, xs, dy0, dx0, w0, dim, channel, groups, silu):
    """The slopes of one token whose four taps are open, into dx, and their share of dweight and dbias."""
    row = groups * LANES
    for g in range(groups):
        c = g * LANES
        slope = load(dy, dy0 + c)
        if silu:
            acc = _four_taps(x, weight, bias, x0 + c, xs, dim, channel + c)
            s = sigmoid(acc)
            slope = slope * (s * fma(acc, splat(ONE) - s, splat(ONE)))
        store(dx, dx0 + c, slope)
        store(dbias, w0 + c, load(dbias, w0 + c) + slope)
        w = w0 * 4 + c
        store(dweight, w, fma(slope, load(x, x0 + c), load(dweight, w)))
        store(dweight, w + row, fma(slope, load(x, x0 - xs + c), load(dweight, w + row)))
        store(dweight, w + 2 * row, fma(slope, load(x, x0 - 2 * xs + c), load(dweight, w + 2 * row)))
        store(dweight, w + 3 * row, fma(slope, load(x, x0 - 3 * xs + c), load(dweight, w + 3 * row)))


@compiled
def _slopes(
    x, weight, bias, taps, mask, dy, dx, dtaps, dweight, dbias, xs, ms, x0, dy0, dx0, m0, h0, w0,
    dim, channel, groups, width, t, open_taps, has_taps, has_mask, silu,
):  # fmt: skip
    """As :func:`_slopes_of_four` for any token and width; dy0 and dx0 are where its rows stand."""
    for g in range(groups):
        c = g * LANES
        slope = load(dy, dy0 + c)
        if silu:
            acc = _sum_of_taps(
                x, weight, bias, taps, has_taps, mask, has_mask, x0 + c, xs, m0, ms, h0 + c, dim, channel + c,
                t, open_taps, width,
            )  # fmt: skip
            s = sigmoid(acc)
            slope = slope * (s * fma(acc, splat(ONE) - s, splat(ONE)))
        store(dx, dx0 + c, slope)
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
            _ask(x, x0, xs, t, seqlen, groups * LANES)
            _ask(dy, dy0, dys, t, seqlen, groups * LANES)
            _ask(dx, dx0, dxs, t, seqlen, groups * LANES)
            open_taps = width - 1
            if has_since:
                open_taps = int(since[m0 + t * ms])
            if width == 4 and t >= 3 and open_taps == 3 and not has_mask:
                _slopes_of_four(
                    x, weight, bias, dy, dx, dweight, dbias, x0 + t * xs, xs, dy0 + t * dys, dx0 + t * dxs, w0,
                    dim, channel, groups, silu,
                )  # fmt: skip
            else:
                _slopes(
                    x, weight, bias, taps, mask, dy, dx, dtaps, dweight, dbias, xs, ms, x0, dy0 + t * dys,
                    dx0 + t * dxs, m0, h0, w0, dim, channel, groups, width, t, open_taps, has_taps, has_mask, silu,
                )  # fmt: skip
        first = t - (width - 1)
        if first >= 0:
            masked = has_mask and mask[m0 + first * ms] == 0
            whole = width == 4 and t < seqlen and not has_mask and not has_since
            for g in range(groups):
                c = g * LANES
                if whole:
                    d = dx0 + first * dxs + c
                    w = channel + c
                    acc = fma(load(weight, dim + w), load(dx, d + dxs), load(weight, w) * load(dx, d))
                    acc = fma(load(weight, 2 * dim + w), load(dx, d + 2 * dxs), acc)
                    store(dx, d, fma(load(weight, 3 * dim + w), load(dx, d + 3 * dxs), acc))
                    continue
                acc = splat(ZERO)
                if not masked:
                    for k in range(min(width, seqlen - first)):
                        if not has_since or int(since[m0 + (first + k) * ms]) >= k:
                            slope = load(dx, dx0 + (first + k) * dxs + c)
                            acc = fma(load(weight, k * dim + channel + c), slope, acc)
                store(dx, dx0 + first * dxs + c, acc)
