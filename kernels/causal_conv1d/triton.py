"""Depthwise causal convolution with SiLU in Triton: a lane walks down its channel with the last inputs in registers.

A program takes a chunk of tokens and a block of channels, so each input is read once but for the WIDTH - 1 before a
chunk. Backward walks the same way with a second window, of the gradients that are still being added up: the gradient
of an input is complete WIDTH - 1 tokens later, so a walk goes that far beyond its chunk.

Layouts: x, y (batch, seqlen, dim) with any strides but a dense last axis; weight (width, dim), its last row for the
token itself; taps (batch, width - 1, dim) in reading order. ``first`` and STEP turn the position in reading order
into a row of memory. ``mask`` and ``since`` (batch, seqlen) uint8: 0 = padding; tokens since the segment's first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from genossm.kernels.triton_math import lanes_if, sigmoid


@triton.jit
def input_at(
    x_ptr, mask_ptr, batch, t, seqlen, dim, first, x_b, x_t, d, MASK: tl.constexpr, STEP: tl.constexpr
):  # fmt: skip
    """x at position t in reading order, 0 outside the sequence and at padding."""
    within = (t >= 0) & (t < seqlen)
    row = (first + t * STEP).to(tl.int64)
    x = tl.load(x_ptr + batch * x_b + row * x_t + d, mask=lanes_if(d, dim, within), other=0.0).to(tl.float32)
    if MASK:
        x = tl.where(tl.load(mask_ptr + batch * seqlen + row, mask=within, other=0) != 0, x, 0.0)
    return x


@triton.jit
def window_before(
    x_ptr, taps_ptr, mask_ptr, batch, t0, seqlen, dim, first, x_b, x_t, d,
    WIDTH: tl.constexpr, MASK: tl.constexpr, TAPS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """The WIDTH - 1 inputs before t0, the nearest first; those before the sequence are the carried taps."""
    window = ()
    for k in tl.static_range(1, WIDTH):
        x = input_at(x_ptr, mask_ptr, batch, t0 - k, seqlen, dim, first, x_b, x_t, d, MASK, STEP)
        if TAPS:
            row = batch * (WIDTH - 1) + (WIDTH - 1 + t0 - k)
            x += tl.load(taps_ptr + row * dim + d, mask=lanes_if(d, dim, t0 < k), other=0.0).to(tl.float32)
        window = window + (x,)
    return window


@triton.jit
def weights_of(weight_ptr, dim, d, WIDTH: tl.constexpr):
    """The weight of each tap, that of the token itself first."""
    weights = ()
    for k in tl.static_range(WIDTH):
        weights = weights + (tl.load(weight_ptr + (WIDTH - 1 - k) * dim + d, mask=d < dim, other=0.0),)
    return weights


@triton.jit
def within_segment(x, window, since, WIDTH: tl.constexpr, SEGMENTS: tl.constexpr):
    """The inputs under the taps of a token, zeros where a tap reaches into an earlier segment."""
    inputs = (x,)
    for k in tl.static_range(1, WIDTH):
        value = window[k - 1]
        if SEGMENTS:
            value = tl.where(since >= k, value, 0.0)
        inputs = inputs + (value,)
    return inputs


@triton.jit
def shifted(x, window, WIDTH: tl.constexpr):
    """The window one token later."""
    new = ()
    for k in tl.static_range(WIDTH - 1):
        if k == 0:
            new = new + (x,)
        else:
            new = new + (window[k - 1],)
    return new


@triton.jit
def conv_forward(
    x_ptr, weight_ptr, bias_ptr, taps_ptr, mask_ptr, since_ptr, y_ptr, seqlen, dim, first, x_b, x_t, y_b, y_t,
    WIDTH: tl.constexpr, SILU: tl.constexpr, TAPS: tl.constexpr, MASK: tl.constexpr, SEGMENTS: tl.constexpr,
    STEP: tl.constexpr, CHUNK: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """y of one chunk of one block of channels."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    inside = d < dim
    t0 = tl.program_id(1) * CHUNK
    batch = tl.program_id(2).to(tl.int64)
    weights = weights_of(weight_ptr, dim, d, WIDTH)
    bias = tl.load(bias_ptr + d, mask=inside, other=0.0)
    window = window_before(
        x_ptr, taps_ptr, mask_ptr, batch, t0, seqlen, dim, first, x_b, x_t, d, WIDTH, MASK, TAPS, STEP
    )  # fmt: skip
    for t in range(t0, tl.minimum(t0 + CHUNK, seqlen)):
        row = (first + t * STEP).to(tl.int64)
        x = input_at(x_ptr, mask_ptr, batch, t, seqlen, dim, first, x_b, x_t, d, MASK, STEP)
        since = 0
        if SEGMENTS:
            since = tl.load(since_ptr + batch * seqlen + row)
        inputs = within_segment(x, window, since, WIDTH, SEGMENTS)
        y = bias
        for k in tl.static_range(WIDTH):
            y += weights[k] * inputs[k]
        if SILU:
            y *= sigmoid(y)
        tl.store(y_ptr + batch * y_b + row * y_t + d, y.to(y_ptr.dtype.element_ty), mask=inside)
        window = shifted(x, window, WIDTH)


@triton.jit
def conv_backward(
    x_ptr, weight_ptr, bias_ptr, taps_ptr, mask_ptr, since_ptr, dy_ptr, dx_ptr, dtaps_ptr, dweight_ptr, dbias_ptr,
    seqlen, dim, first, x_b, x_t, dy_b, dy_t,
    WIDTH: tl.constexpr, SILU: tl.constexpr, TAPS: tl.constexpr, MASK: tl.constexpr, SEGMENTS: tl.constexpr,
    STEP: tl.constexpr, CHUNK: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradients of one chunk; those of weight and bias as sums over the chunk."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    inside = d < dim
    t0 = tl.program_id(1) * CHUNK
    batch = tl.program_id(2).to(tl.int64)
    weights = weights_of(weight_ptr, dim, d, WIDTH)
    bias = tl.load(bias_ptr + d, mask=inside, other=0.0)
    window = window_before(
        x_ptr, taps_ptr, mask_ptr, batch, t0, seqlen, dim, first, x_b, x_t, d, WIDTH, MASK, TAPS, STEP
    )  # fmt: skip
    pending = ()  # gradients of the inputs at t - 1, t - 2, ...: what the tokens so far have added
    dweight = ()
    for _ in tl.static_range(WIDTH - 1):
        pending = pending + (tl.zeros((BD,), tl.float32),)
    for _ in tl.static_range(WIDTH):
        dweight = dweight + (tl.zeros((BD,), tl.float32),)
    dbias = tl.zeros((BD,), tl.float32)
    end = tl.minimum(t0 + CHUNK, seqlen)
    for t in range(t0, end + WIDTH - 1):
        within = t < seqlen
        row = (first + t * STEP).to(tl.int64)
        x = input_at(x_ptr, mask_ptr, batch, t, seqlen, dim, first, x_b, x_t, d, MASK, STEP)
        slope = tl.load(dy_ptr + batch * dy_b + row * dy_t + d, mask=lanes_if(d, dim, within), other=0.0)
        slope = slope.to(tl.float32)
        since = 0
        if SEGMENTS:
            since = tl.load(since_ptr + batch * seqlen + row, mask=within, other=0)
        inputs = within_segment(x, window, since, WIDTH, SEGMENTS)
        if SILU:
            y = bias
            for k in tl.static_range(WIDTH):
                y += weights[k] * inputs[k]
            s = sigmoid(y)
            slope *= s * (1.0 + y * (1.0 - s))
        own = tl.where(t < end, slope, 0.0)
        dbias += own
        new_dweight = ()
        grads = ()
        for k in tl.static_range(WIDTH):
            new_dweight = new_dweight + (dweight[k] + own * inputs[k],)
            share = weights[k] * slope
            if SEGMENTS:
                share = tl.where(since >= k, share, 0.0)
            if k > 0:
                share += pending[k - 1]
            grads = grads + (share,)
        dweight = new_dweight
        source = t - (WIDTH - 1)  # the input whose gradient is complete now
        done = grads[WIDTH - 1]
        if TAPS:
            at = (batch * (WIDTH - 1) + t) * dim + d
            tl.store(dtaps_ptr + at, done.to(dtaps_ptr.dtype.element_ty), mask=lanes_if(d, dim, source < 0))
        at = (first + source * STEP).to(tl.int64)
        if MASK:
            done = tl.where(tl.load(mask_ptr + batch * seqlen + at, mask=source >= t0, other=0) != 0, done, 0.0)
        ours = lanes_if(d, dim, source >= t0)
        tl.store(dx_ptr + (batch * seqlen + at) * dim + d, done.to(dx_ptr.dtype.element_ty), mask=ours)
        new_pending = ()
        for k in tl.static_range(WIDTH - 1):
            new_pending = new_pending + (grads[k],)
        pending = new_pending
        window = shifted(x, window, WIDTH)
    slot = batch * tl.num_programs(1) + tl.program_id(1)
    for k in tl.static_range(WIDTH):
        tl.store(dweight_ptr + (slot * WIDTH + WIDTH - 1 - k) * dim + d, dweight[k], mask=inside)
    tl.store(dbias_ptr + slot * dim + d, dbias, mask=inside)
