"""Diagonal time-invariant state space in Triton: the recurrence itself, chunk by chunk, without a kernel or an FFT.

The three phases of ``selective_scan/triton.py`` with a complex, constant decay: what a chunk does to a state that
enters it is one power of the decay, which the launcher takes from its exponent in float64. Backward: the states at
block borders (``lti_local``) and what each chunk sends back (``lti_adjoint``), the carry of the latter
(``lti_carry``), then ``lti_backward`` takes a chunk block by block from its end.

Layouts: u, y (batch, seqlen, dim) with any strides but a dense last axis; decay and C as real and imaginary parts
(dstate, dim); states (2, batch, chunks, dstate, dim), real parts first. ``first`` and STEP turn the position in
reading order into a row of memory. ``marks`` (batch, seqlen) uint8: 1 = padding, 2 = cleared before this token.
"""

from __future__ import annotations

import triton
import triton.language as tl

from genossm.kernels.triton_math import lanes_if


@triton.jit
def parts(pointer, half, dim, d, inside, N: tl.constexpr):
    """N complex numbers of each channel: real parts at ``pointer``, imaginary parts ``half`` further on."""
    real = ()
    imaginary = ()
    for n in tl.static_range(N):
        real = real + (tl.load(pointer + n * dim + d, mask=inside, other=0.0),)
        imaginary = imaginary + (tl.load(pointer + half + n * dim + d, mask=inside, other=0.0),)
    return real, imaginary


@triton.jit
def store_parts(pointer, half, real, imaginary, dim, d, inside, N: tl.constexpr):
    for n in tl.static_range(N):
        tl.store(pointer + n * dim + d, real[n], mask=inside)
        tl.store(pointer + half + n * dim + d, imaginary[n], mask=inside)


@triton.jit
def zeros(N: tl.constexpr, BD: tl.constexpr):
    values = ()
    for _ in tl.static_range(N):
        values = values + (tl.zeros((BD,), tl.float32),)
    return values


@triton.jit
def advance(xr, xi, wr, wi, u, mark, N: tl.constexpr, MARKS: tl.constexpr):
    """One token: x <- w x + u; padding leaves x, and a new segment starts from 0."""
    real = ()
    imaginary = ()
    for n in tl.static_range(N):
        a = xr[n]
        b = xi[n]
        if MARKS == 2:
            a = tl.where((mark & 2) != 0, 0.0, a)
            b = tl.where((mark & 2) != 0, 0.0, b)
        r = wr[n] * a - wi[n] * b + u
        i = wr[n] * b + wi[n] * a
        if MARKS != 0:
            r = tl.where((mark & 1) != 0, a, r)
            i = tl.where((mark & 1) != 0, b, i)
        real = real + (r,)
        imaginary = imaginary + (i,)
    return real, imaginary


@triton.jit
def lti_local(
    u_ptr, w_ptr, marks_ptr, entry_ptr, out_ptr, out_half, seqlen, dim, first, u_b, u_t,
    N: tl.constexpr, MARKS: tl.constexpr, STEP: tl.constexpr, CHUNK: tl.constexpr, T: tl.constexpr,
    BD: tl.constexpr,
):  # fmt: skip
    """T = 0: the state at the end of each chunk from a zero state. Else from its entry state, stored every T tokens."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    inside = d < dim
    chunk = tl.program_id(1)
    chunks = tl.num_programs(1)
    batch = tl.program_id(2).to(tl.int64)
    slot = batch * chunks + chunk
    wr, wi = parts(w_ptr, N * dim, dim, d, inside, N)
    if T == 0:
        xr = zeros(N, BD)
        xi = zeros(N, BD)
    else:
        xr, xi = parts(entry_ptr + slot * N * dim, tl.num_programs(2) * chunks * N * dim, dim, d, inside, N)
    for t in range(chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, seqlen)):
        if T != 0:
            if t % T == 0:
                block = batch * tl.cdiv(seqlen, T) + t // T
                store_parts(out_ptr + block * N * dim, out_half, xr, xi, dim, d, inside, N)
        row = (first + t * STEP).to(tl.int64)
        u = tl.load(u_ptr + batch * u_b + row * u_t + d, mask=inside, other=0.0).to(tl.float32)
        mark = 0
        if MARKS != 0:
            mark = tl.load(marks_ptr + batch * seqlen + row)
        xr, xi = advance(xr, xi, wr, wi, u, mark, N, MARKS)
    if T == 0:
        store_parts(out_ptr + slot * N * dim, out_half, xr, xi, dim, d, inside, N)


@triton.jit
def lti_carry(
    values_ptr, powers_ptr, initial_ptr, half, chunks, size, first, step, powers_b, powers_half,
    CONJUGATE: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """In place: what each chunk adds becomes what it starts from; GROUP chunks are loaded before the first is used."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    batch = tl.program_id(1).to(tl.int64)
    hr = tl.load(initial_ptr + batch * size + i, mask=inside, other=0.0)
    hi = tl.load(initial_ptr + (tl.num_programs(1) + batch) * size + i, mask=inside, other=0.0)
    for c in range(0, chunks, GROUP):
        ar = ()
        ai = ()
        pr = ()
        pi = ()
        for k in tl.static_range(GROUP):
            chunk = first + (c + k) * step
            here = lanes_if(i, size, c + k < chunks)
            at = (batch * chunks + chunk) * size + i
            ar = ar + (tl.load(values_ptr + at, mask=here, other=0.0),)
            ai = ai + (tl.load(values_ptr + half + at, mask=here, other=0.0),)
            power = powers_ptr + batch * powers_b + chunk * size + i
            pr = pr + (tl.load(power, mask=here, other=0.0),)
            pi = pi + (tl.load(power + powers_half, mask=here, other=0.0),)
        for k in tl.static_range(GROUP):
            at = (batch * chunks + first + (c + k) * step) * size + i
            here = lanes_if(i, size, c + k < chunks)
            tl.store(values_ptr + at, hr, mask=here)
            tl.store(values_ptr + half + at, hi, mask=here)
            turn = pi[k]
            if CONJUGATE:
                turn = -turn
            r = pr[k] * hr - turn * hi + ar[k]
            hi = pr[k] * hi + turn * hr + ai[k]
            hr = r


@triton.jit
def lti_output(
    u_ptr, w_ptr, c_ptr, marks_ptr, entry_ptr, y_ptr, final_ptr, seqlen, dim, first, u_b, u_t,
    N: tl.constexpr, MARKS: tl.constexpr, STEP: tl.constexpr, CHUNK: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """y of each chunk from its entry state; the last chunk leaves the final state."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    inside = d < dim
    chunk = tl.program_id(1)
    chunks = tl.num_programs(1)
    batches = tl.num_programs(2)
    batch = tl.program_id(2).to(tl.int64)
    wr, wi = parts(w_ptr, N * dim, dim, d, inside, N)
    cr, ci = parts(c_ptr, N * dim, dim, d, inside, N)
    xr, xi = parts(entry_ptr + (batch * chunks + chunk) * N * dim, batches * chunks * N * dim, dim, d, inside, N)
    for t in range(chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, seqlen)):
        row = (first + t * STEP).to(tl.int64)
        u = tl.load(u_ptr + batch * u_b + row * u_t + d, mask=inside, other=0.0).to(tl.float32)
        mark = 0
        if MARKS != 0:
            mark = tl.load(marks_ptr + batch * seqlen + row)
        xr, xi = advance(xr, xi, wr, wi, u, mark, N, MARKS)
        y = tl.zeros((BD,), tl.float32)
        for n in tl.static_range(N):
            y += cr[n] * xr[n] - ci[n] * xi[n]
        tl.store(y_ptr + (batch * seqlen + row) * dim + d, (2.0 * y).to(y_ptr.dtype.element_ty), mask=inside)
    if chunk == chunks - 1:
        store_parts(final_ptr + batch * N * dim, batches * N * dim, xr, xi, dim, d, inside, N)


@triton.jit
def lti_adjoint(
    dy_ptr, w_ptr, c_ptr, marks_ptr, adjoint_ptr, half, seqlen, dim, first, dy_b, dy_t,
    N: tl.constexpr, MARKS: tl.constexpr, STEP: tl.constexpr, CHUNK: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """What each chunk sends back to its entry state, walked from its end: g <- conj(w) (g + 2 conj(C) dy)."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    inside = d < dim
    chunk = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    wr, wi = parts(w_ptr, N * dim, dim, d, inside, N)
    cr, ci = parts(c_ptr, N * dim, dim, d, inside, N)
    gr = zeros(N, BD)
    gi = zeros(N, BD)
    end = tl.minimum((chunk + 1) * CHUNK, seqlen)
    for k in range(end - chunk * CHUNK):
        row = (first + (end - 1 - k) * STEP).to(tl.int64)
        dy = 2.0 * tl.load(dy_ptr + batch * dy_b + row * dy_t + d, mask=inside, other=0.0).to(tl.float32)
        mark = 0
        if MARKS != 0:
            mark = tl.load(marks_ptr + batch * seqlen + row)
        real = ()
        imaginary = ()
        for n in tl.static_range(N):
            a = gr[n] + cr[n] * dy
            b = gi[n] - ci[n] * dy
            r = wr[n] * a + wi[n] * b
            i = wr[n] * b - wi[n] * a
            if MARKS != 0:
                r = tl.where((mark & 1) != 0, a, r)
                i = tl.where((mark & 1) != 0, b, i)
            if MARKS == 2:
                r = tl.where((mark & 2) != 0, 0.0, r)
                i = tl.where((mark & 2) != 0, 0.0, i)
            real = real + (r,)
            imaginary = imaginary + (i,)
        gr = real
        gi = imaginary
    slot = batch * tl.num_programs(1) + chunk
    store_parts(adjoint_ptr + slot * N * dim, half, gr, gi, dim, d, inside, N)


@triton.jit
def load_pair(pointer, half, mask):
    return tl.load(pointer, mask=mask, other=0.0), tl.load(pointer + half, mask=mask, other=0.0)


@triton.jit
def store_pair(pointer, half, real, imaginary, mask):
    tl.store(pointer, real, mask=mask)
    tl.store(pointer + half, imaginary, mask=mask)


@triton.jit
def lti_backward(
    u_ptr, w_ptr, c_ptr, marks_ptr, dy_ptr, blocks_ptr, adjoint_ptr, du_ptr, dw_ptr, dc_ptr, dinitial_ptr,
    blocks_half, half, seqlen, dim, first, u_b, u_t, dy_b, dy_t,
    N: tl.constexpr, MARKS: tl.constexpr, STEP: tl.constexpr, CHUNK: tl.constexpr, T: tl.constexpr,
    BD: tl.constexpr,
):  # fmt: skip
    """Every gradient of a chunk, its blocks of T tokens taken from the last to the first.

    ``adjoint``, ``dw`` and ``dc`` (each memory of this program alone) carry sums from block to block; beyond the
    sequence tokens count as padding.
    """
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    inside = d < dim
    chunk = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    slot = batch * tl.num_programs(1) + chunk
    blocks = tl.cdiv(tl.minimum(CHUNK, seqlen - chunk * CHUNK), T)
    for j in range(blocks):
        t0 = chunk * CHUNK + (blocks - 1 - j) * T
        us = ()
        dys = ()
        dus = ()
        marks = ()
        for k in tl.static_range(T):
            here = lanes_if(d, dim, t0 + k < seqlen)
            row = (first + (t0 + k) * STEP).to(tl.int64)
            us = us + (tl.load(u_ptr + batch * u_b + row * u_t + d, mask=here, other=0.0).to(tl.float32),)
            dy = tl.load(dy_ptr + batch * dy_b + row * dy_t + d, mask=here, other=0.0).to(tl.float32)
            dys = dys + (2.0 * dy,)
            dus = dus + (tl.zeros((BD,), tl.float32),)
            mark = tl.where(t0 + k < seqlen, 0, 1)
            if MARKS != 0:
                mark += tl.load(marks_ptr + batch * seqlen + row, mask=t0 + k < seqlen, other=0)
            marks = marks + (mark,)
        for n in range(N):
            wr, wi = load_pair(w_ptr + n * dim + d, N * dim, inside)
            cr, ci = load_pair(c_ptr + n * dim + d, N * dim, inside)
            at = (slot * N + n) * dim + d
            later = lanes_if(d, dim, j > 0)
            gr, gi = load_pair(adjoint_ptr + at, half, inside)
            dwr, dwi = load_pair(dw_ptr + at, half, later)
            dcr, dci = load_pair(dc_ptr + at, half, later)
            block = batch * tl.cdiv(seqlen, T) + t0 // T
            xr, xi = load_pair(blocks_ptr + (block * N + n) * dim + d, blocks_half, inside)
            before_r = ()
            before_i = ()
            after_r = ()
            after_i = ()
            for k in tl.static_range(T):
                if MARKS == 2:
                    xr = tl.where((marks[k] & 2) != 0, 0.0, xr)
                    xi = tl.where((marks[k] & 2) != 0, 0.0, xi)
                before_r = before_r + (xr,)
                before_i = before_i + (xi,)
                padding = (marks[k] & 1) != 0
                r = tl.where(padding, xr, wr * xr - wi * xi + us[k])
                xi = tl.where(padding, xi, wr * xi + wi * xr)
                xr = r
                after_r = after_r + (xr,)
                after_i = after_i + (xi,)
            new_dus = ()
            for k in tl.static_range(T - 1, -1, -1):
                dcr += dys[k] * after_r[k]
                dci -= dys[k] * after_i[k]
                gr += cr * dys[k]
                gi -= ci * dys[k]
                padding = (marks[k] & 1) != 0
                own_r = tl.where(padding, 0.0, gr)
                own_i = tl.where(padding, 0.0, gi)
                new_dus = (dus[k] + own_r,) + new_dus
                dwr += own_r * before_r[k] + own_i * before_i[k]
                dwi += own_i * before_r[k] - own_r * before_i[k]
                r = tl.where(padding, gr, wr * gr + wi * gi)
                gi = tl.where(padding, gi, wr * gi - wi * gr)
                gr = r
                if MARKS == 2:
                    gr = tl.where((marks[k] & 2) != 0, 0.0, gr)
                    gi = tl.where((marks[k] & 2) != 0, 0.0, gi)
            dus = new_dus
            store_pair(adjoint_ptr + at, half, gr, gi, inside)
            store_pair(dw_ptr + at, half, dwr, dwi, inside)
            store_pair(dc_ptr + at, half, dcr, dci, inside)
        dense = (batch * seqlen + first + t0 * STEP) * dim + d
        for k in tl.static_range(T):
            here = lanes_if(d, dim, t0 + k < seqlen)
            tl.store(du_ptr + dense + k * STEP * dim, dus[k].to(du_ptr.dtype.element_ty), mask=here)
        tl.debug_barrier()  # the next block reads what this one left in adjoint, dw and dc
    if chunk == 0:
        for n in range(N):
            gr, gi = load_pair(adjoint_ptr + (slot * N + n) * dim + d, half, inside)
            store_pair(dinitial_ptr + (batch * N + n) * dim + d, tl.num_programs(2) * N * dim, gr, gi, inside)
