"""Selective scan in Triton: chunks side by side, so that one long sequence fills a GPU.

Three phases: every chunk from a zero state (``scan_local``); the carry from chunk to chunk (``scan_carry``); every
chunk again from its true entry state, with the output (``scan_output``). Backward does the same with the adjoint,
which runs against the reading order: ``adjoint_local`` walks a chunk once in reading order and yields both the states
at block borders and what the chunk sends back (the adjoint of its entry state is sum_t P_t C_t dy_t, P_t the decay
from the entry to t, so it needs no second walk); ``scan_carry`` joins the chunks; ``scan_backward`` takes a chunk
block by block from its end, with the states of one block in registers.

A lane owns a channel and keeps its states in registers, so nothing crosses lanes except the sums over channels that
dB and dC are. Those go to one slot a channel block and are added afterwards: no atomics, equal bits in every run.

Layouts: u, dt, z, y (batch, seqlen, dim) with any strides but a dense last axis; B, C (batch, seqlen, dstate) dense;
A / ln 2 as (dstate, dim); states as (batch, chunks, dstate, dim). ``first`` and STEP turn the position in reading
order into a row of memory: reading backwards is first = seqlen - 1, STEP = -1. ``marks`` (batch, seqlen) uint8:
1 = padding, 2 = the state is cleared before this token.
"""

from __future__ import annotations

import triton
import triton.language as tl

from genossm.kernels.triton_math import lanes_if, sigmoid, time_step


@triton.jit
def state_registers(pointer, dim, d, inside, N: tl.constexpr):
    """The N values of each channel d at pointer[n * dim + d], as N registers a lane."""
    values = ()
    for n in tl.static_range(N):
        values = values + (tl.load(pointer + n * dim + d, mask=inside, other=0.0),)
    return values


@triton.jit
def store_states(pointer, values, dim, d, inside, N: tl.constexpr):
    for n in tl.static_range(N):
        tl.store(pointer + n * dim + d, values[n], mask=inside)


@triton.jit
def advance(h, a, delta, du, cleared, B_row, N: tl.constexpr, RESET: tl.constexpr):
    """One token: h_n <- exp2(delta a_n) h_n + du B_n."""
    new = ()
    for n in tl.static_range(N):
        decay = tl.exp2(delta * a[n])
        if RESET:
            decay = tl.where(cleared, 0.0, decay)
        new = new + (decay * h[n] + du * tl.load(B_row + n).to(tl.float32),)
    return new


@triton.jit
def scan_local(
    u_ptr, dt_ptr, a_ptr, bias_ptr, B_ptr, marks_ptr, local_ptr, sums_ptr,
    seqlen, dim, first, u_b, u_t, dt_b, dt_t,
    N: tl.constexpr, SOFTPLUS: tl.constexpr, MARKS: tl.constexpr, STEP: tl.constexpr, CHUNK: tl.constexpr,
    BD: tl.constexpr,
):  # fmt: skip
    """State at the end of each chunk from a zero state, and the sum of its time steps (infinite if it is cut)."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    inside = d < dim
    chunk = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    a = state_registers(a_ptr, dim, d, inside, N)
    bias = tl.load(bias_ptr + d, mask=inside, other=0.0)
    h = ()
    for _ in tl.static_range(N):
        h = h + (tl.zeros((BD,), tl.float32),)
    total = tl.zeros((BD,), tl.float32)
    for t in range(chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, seqlen)):
        row = (first + t * STEP).to(tl.int64)
        u = tl.load(u_ptr + batch * u_b + row * u_t + d, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(dt_ptr + batch * dt_b + row * dt_t + d, mask=inside, other=0.0).to(tl.float32) + bias
        delta = time_step(x, SOFTPLUS)
        cleared = False
        if MARKS != 0:
            mark = tl.load(marks_ptr + batch * seqlen + row)
            delta = tl.where((mark & 1) != 0, 0.0, delta)
            cleared = (mark & 2) != 0
            if MARKS == 2:
                total = tl.where(cleared, float("inf"), total)
        total += delta
        h = advance(h, a, delta, delta * u, cleared, B_ptr + (batch * seqlen + row) * N, N, MARKS == 2)
    slot = batch * tl.num_programs(1) + chunk
    store_states(local_ptr + slot * N * dim, h, dim, d, inside, N)
    tl.store(sums_ptr + slot * dim + d, total, mask=inside)


@triton.jit
def scan_carry(
    values_ptr, sums_ptr, a_ptr, initial_ptr, chunks, size, dim, first, step,
    GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """In place: what each chunk adds becomes what it starts from; chunks are taken as first + k * step.

    GROUP chunks are loaded before the first is used, so their latencies overlap.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    batch = tl.program_id(1).to(tl.int64)
    a = tl.load(a_ptr + i, mask=inside, other=0.0)
    h = tl.load(initial_ptr + batch * size + i, mask=inside, other=0.0)
    for c in range(0, chunks, GROUP):
        added = ()
        decays = ()
        for k in tl.static_range(GROUP):
            slot = batch * chunks + first + (c + k) * step
            here = lanes_if(i, size, c + k < chunks)
            added = added + (tl.load(values_ptr + slot * size + i, mask=here, other=0.0),)
            total = tl.load(sums_ptr + slot * dim + i % dim, mask=here, other=0.0)
            decays = decays + (tl.where(total == float("inf"), 0.0, tl.exp2(total * a)),)
        for k in tl.static_range(GROUP):
            slot = batch * chunks + first + (c + k) * step
            tl.store(values_ptr + slot * size + i, h, mask=lanes_if(i, size, c + k < chunks))
            h = decays[k] * h + added[k]


@triton.jit
def scan_output(
    u_ptr, dt_ptr, a_ptr, bias_ptr, B_ptr, C_ptr, D_ptr, z_ptr, marks_ptr, entry_ptr, y_ptr, final_ptr,
    seqlen, dim, first, u_b, u_t, dt_b, dt_t, z_b, z_t, y_b, y_t,
    N: tl.constexpr, SOFTPLUS: tl.constexpr, MARKS: tl.constexpr, GATE: tl.constexpr, STEP: tl.constexpr,
    CHUNK: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """y of each chunk from its entry state; the last chunk leaves the final state."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    inside = d < dim
    chunk = tl.program_id(1)
    chunks = tl.num_programs(1)
    batch = tl.program_id(2).to(tl.int64)
    a = state_registers(a_ptr, dim, d, inside, N)
    h = state_registers(entry_ptr + (batch * chunks + chunk) * N * dim, dim, d, inside, N)
    bias = tl.load(bias_ptr + d, mask=inside, other=0.0)
    skip = tl.load(D_ptr + d, mask=inside, other=0.0)
    for t in range(chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, seqlen)):
        row = (first + t * STEP).to(tl.int64)
        u = tl.load(u_ptr + batch * u_b + row * u_t + d, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(dt_ptr + batch * dt_b + row * dt_t + d, mask=inside, other=0.0).to(tl.float32) + bias
        delta = time_step(x, SOFTPLUS)
        cleared = False
        if MARKS != 0:
            mark = tl.load(marks_ptr + batch * seqlen + row)
            delta = tl.where((mark & 1) != 0, 0.0, delta)
            cleared = (mark & 2) != 0
        h = advance(h, a, delta, delta * u, cleared, B_ptr + (batch * seqlen + row) * N, N, MARKS == 2)
        y = skip * u
        for n in tl.static_range(N):
            y += h[n] * tl.load(C_ptr + (batch * seqlen + row) * N + n).to(tl.float32)
        if GATE:
            z = tl.load(z_ptr + batch * z_b + row * z_t + d, mask=inside, other=0.0).to(tl.float32)
            y *= z * sigmoid(z)
        tl.store(y_ptr + batch * y_b + row * y_t + d, y.to(y_ptr.dtype.element_ty), mask=inside)
    if chunk == chunks - 1:
        store_states(final_ptr + batch * N * dim, h, dim, d, inside, N)


@triton.jit
def adjoint_local(
    u_ptr, dt_ptr, a_ptr, bias_ptr, B_ptr, C_ptr, z_ptr, marks_ptr, entry_ptr, dy_ptr, blocks_ptr, adjoint_ptr,
    sums_ptr,
    seqlen, dim, first, u_b, u_t, dt_b, dt_t, z_b, z_t, dy_b, dy_t,
    N: tl.constexpr, SOFTPLUS: tl.constexpr, MARKS: tl.constexpr, GATE: tl.constexpr, STEP: tl.constexpr,
    CHUNK: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """States at the start of every block of T tokens, and the adjoint that each chunk sends to the one before it."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    inside = d < dim
    chunk = tl.program_id(1)
    slot = tl.program_id(2).to(tl.int64) * tl.num_programs(1) + chunk
    batch = tl.program_id(2).to(tl.int64)
    a = state_registers(a_ptr, dim, d, inside, N)
    h = state_registers(entry_ptr + slot * N * dim, dim, d, inside, N)
    bias = tl.load(bias_ptr + d, mask=inside, other=0.0)
    adjoint = ()
    decay = ()
    for _ in tl.static_range(N):
        adjoint = adjoint + (tl.zeros((BD,), tl.float32),)
        decay = decay + (tl.full((BD,), 1.0, tl.float32),)
    total = tl.zeros((BD,), tl.float32)
    blocks = tl.cdiv(seqlen, T)
    for t in range(chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, seqlen)):
        if t % T == 0:
            store_states(blocks_ptr + (batch * blocks + t // T) * N * dim, h, dim, d, inside, N)
        row = (first + t * STEP).to(tl.int64)
        u = tl.load(u_ptr + batch * u_b + row * u_t + d, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(dt_ptr + batch * dt_b + row * dt_t + d, mask=inside, other=0.0).to(tl.float32) + bias
        dy = tl.load(dy_ptr + batch * dy_b + row * dy_t + d, mask=inside, other=0.0).to(tl.float32)
        delta = time_step(x, SOFTPLUS)
        if GATE:
            z = tl.load(z_ptr + batch * z_b + row * z_t + d, mask=inside, other=0.0).to(tl.float32)
            dy *= z * sigmoid(z)
        cleared = False
        if MARKS != 0:
            mark = tl.load(marks_ptr + batch * seqlen + row)
            delta = tl.where((mark & 1) != 0, 0.0, delta)
            cleared = (mark & 2) != 0
            if MARKS == 2:
                total = tl.where(cleared, float("inf"), total)
        total += delta
        new_h = ()
        new_decay = ()
        new_adjoint = ()
        for n in tl.static_range(N):
            e = tl.exp2(delta * a[n])
            if MARKS == 2:
                e = tl.where(cleared, 0.0, e)
            b = tl.load(B_ptr + (batch * seqlen + row) * N + n).to(tl.float32)
            c = tl.load(C_ptr + (batch * seqlen + row) * N + n).to(tl.float32)
            reach = decay[n] * e
            new_h = new_h + (e * h[n] + (delta * u) * b,)
            new_decay = new_decay + (reach,)
            new_adjoint = new_adjoint + (adjoint[n] + reach * (c * dy),)
        h = new_h
        decay = new_decay
        adjoint = new_adjoint
    store_states(adjoint_ptr + slot * N * dim, adjoint, dim, d, inside, N)
    tl.store(sums_ptr + slot * dim + d, total, mask=inside)


@triton.jit
def block_tokens(
    u_ptr, dt_ptr, bias, z_ptr, marks_ptr, dy_ptr, batch, t0, seqlen, first, d, dim,
    u_b, u_t, dt_b, dt_t, z_b, z_t, dy_b, dy_t,
    SOFTPLUS: tl.constexpr, MARKS: tl.constexpr, GATE: tl.constexpr, STEP: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """What T tokens bring: u, delta, d delta / d dt, the gradient of the ungated y, and that of z over the ungated y.

    Nothing happens beyond the sequence: there delta and every gradient are 0. All is kept in registers, since the
    addresses to load it again would take more of them.
    """
    us = ()
    deltas = ()
    bends = ()
    slopes = ()
    gates = ()
    for k in tl.static_range(T):
        here = lanes_if(d, dim, t0 + k < seqlen)
        row = (first + (t0 + k) * STEP).to(tl.int64)
        u = tl.load(u_ptr + batch * u_b + row * u_t + d, mask=here, other=0.0).to(tl.float32)
        x = tl.load(dt_ptr + batch * dt_b + row * dt_t + d, mask=here, other=0.0).to(tl.float32) + bias
        dy = tl.load(dy_ptr + batch * dy_b + row * dy_t + d, mask=here, other=0.0).to(tl.float32)
        delta = tl.where(here, time_step(x, SOFTPLUS), 0.0)
        bend = tl.where(here, 1.0, 0.0)
        if SOFTPLUS:
            bend *= sigmoid(x)
        if MARKS != 0:
            mark = tl.load(marks_ptr + batch * seqlen + row, mask=t0 + k < seqlen, other=0)
            delta = tl.where((mark & 1) != 0, 0.0, delta)
            bend = tl.where((mark & 1) != 0, 0.0, bend)
        if GATE:
            z = tl.load(z_ptr + batch * z_b + row * z_t + d, mask=here, other=0.0).to(tl.float32)
            s = sigmoid(z)
            gates = gates + (dy * s * (1.0 + z * (1.0 - s)),)
            dy *= z * s
        us = us + (u,)
        deltas = deltas + (delta,)
        bends = bends + (bend,)
        slopes = slopes + (dy,)
    return us, deltas, bends, slopes, gates


@triton.jit
def block_states(
    h, a, us, deltas, B_ptr, C_ptr, marks_ptr, batch, t0, seqlen, first,
    N: tl.constexpr, MARKS: tl.constexpr, STEP: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """One state of each channel through T tokens: the states (T + 1), the decays, B and C of every token."""
    states = (h,)
    decays = ()
    bs = ()
    cs = ()
    start = batch * seqlen + (first + t0 * STEP)
    for k in tl.static_range(T):
        b = tl.load(B_ptr + start * N + k * STEP * N, mask=t0 + k < seqlen, other=0.0).to(tl.float32)
        c = tl.load(C_ptr + start * N + k * STEP * N, mask=t0 + k < seqlen, other=0.0).to(tl.float32)
        e = tl.exp2(deltas[k] * a)
        if MARKS == 2:
            mark = tl.load(marks_ptr + start + k * STEP, mask=t0 + k < seqlen, other=0)
            e = tl.where((mark & 2) != 0, 0.0, e)
        h = e * h + (deltas[k] * us[k]) * b
        states = states + (h,)
        decays = decays + (e,)
        bs = bs + (b,)
        cs = cs + (c,)
    return states, decays, bs, cs


@triton.jit
def scan_backward(
    u_ptr, dt_ptr, a_ptr, bias_ptr, B_ptr, C_ptr, D_ptr, z_ptr, marks_ptr, dy_ptr, blocks_ptr, adjoint_ptr,
    du_ptr, ddt_ptr, dz_ptr, dA_ptr, dB_ptr, dC_ptr, dD_ptr, dbias_ptr, dinitial_ptr,
    seqlen, dim, first, u_b, u_t, dt_b, dt_t, z_b, z_t, dy_b, dy_t,
    N: tl.constexpr, SOFTPLUS: tl.constexpr, MARKS: tl.constexpr, GATE: tl.constexpr, STEP: tl.constexpr,
    CHUNK: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Every gradient of a chunk, its blocks of T tokens taken from the last to the first.

    The adjoint of the N states between two blocks, and the sums for dA, live in ``adjoint`` and ``dA`` (memory of
    this program alone, in cache); the states inside a block live in registers, one n at a time.
    """
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    inside = d < dim
    chunk = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    slot = batch * tl.num_programs(1) + chunk
    bias = tl.load(bias_ptr + d, mask=inside, other=0.0)
    skip = tl.load(D_ptr + d, mask=inside, other=0.0)
    dskip = tl.zeros((BD,), tl.float32)
    dbias = tl.zeros((BD,), tl.float32)
    blocks = tl.cdiv(tl.minimum(CHUNK, seqlen - chunk * CHUNK), T)
    partial = (tl.program_id(0).to(tl.int64) * tl.num_programs(2) + batch) * seqlen
    for i in range(blocks):
        t0 = chunk * CHUNK + (blocks - 1 - i) * T
        us, deltas, bends, slopes, gates = block_tokens(
            u_ptr, dt_ptr, bias, z_ptr, marks_ptr, dy_ptr, batch, t0, seqlen, first, d, dim,
            u_b, u_t, dt_b, dt_t, z_b, z_t, dy_b, dy_t, SOFTPLUS, MARKS, GATE, STEP, T,
        )  # fmt: skip
        through_input = ()
        through_decay = ()
        ungated = ()
        for k in tl.static_range(T):
            through_input = through_input + (tl.zeros((BD,), tl.float32),)
            through_decay = through_decay + (tl.zeros((BD,), tl.float32),)
            if GATE:
                ungated = ungated + (skip * us[k],)
        for n in range(N):
            at = slot * N * dim + n * dim + d
            a = tl.load(a_ptr + n * dim + d, mask=inside, other=0.0)
            g = tl.load(adjoint_ptr + at, mask=inside, other=0.0)
            dA = tl.load(dA_ptr + at, mask=lanes_if(d, dim, i > 0), other=0.0)
            block = batch * tl.cdiv(seqlen, T) + t0 // T
            h = tl.load(blocks_ptr + (block * N + n) * dim + d, mask=inside, other=0.0)
            states, decays, bs, cs = block_states(
                h, a, us, deltas, B_ptr + n, C_ptr + n, marks_ptr, batch, t0, seqlen, first, N, MARKS, STEP, T
            )
            out = (partial + first + t0 * STEP) * N + n
            new_input = ()
            new_decay = ()
            new_ungated = ()
            for k in tl.static_range(T - 1, -1, -1):
                g += slopes[k] * cs[k]
                here = t0 + k < seqlen
                tl.store(dB_ptr + out + k * STEP * N, tl.sum(g * (deltas[k] * us[k])), mask=here)
                tl.store(dC_ptr + out + k * STEP * N, tl.sum(slopes[k] * states[k + 1]), mask=here)
                new_input = (through_input[k] + g * bs[k],) + new_input
                g = g * decays[k]
                v = g * states[k]
                new_decay = (through_decay[k] + v * a,) + new_decay
                dA += v * deltas[k]
                if GATE:
                    new_ungated = (ungated[k] + states[k + 1] * cs[k],) + new_ungated
            through_input = new_input
            through_decay = new_decay
            if GATE:
                ungated = new_ungated
            tl.store(adjoint_ptr + at, g, mask=inside)
            tl.store(dA_ptr + at, dA, mask=inside)
        dense = (batch * seqlen + first + t0 * STEP) * dim + d
        for k in tl.static_range(T):
            here = lanes_if(d, dim, t0 + k < seqlen)
            du = through_input[k] * deltas[k] + skip * slopes[k]
            ddt = (through_input[k] * us[k] + through_decay[k] * 0.6931471805599453) * bends[k]
            tl.store(du_ptr + dense + k * STEP * dim, du.to(du_ptr.dtype.element_ty), mask=here)
            tl.store(ddt_ptr + dense + k * STEP * dim, ddt.to(ddt_ptr.dtype.element_ty), mask=here)
            if GATE:
                dz = gates[k] * ungated[k]
                tl.store(dz_ptr + dense + k * STEP * dim, dz.to(dz_ptr.dtype.element_ty), mask=here)
            dskip += slopes[k] * us[k]
            dbias += ddt
        tl.debug_barrier()  # the next block reads what this one left in adjoint and dA
    if chunk == 0:
        for n in range(N):
            g = tl.load(adjoint_ptr + slot * N * dim + n * dim + d, mask=inside, other=0.0)
            tl.store(dinitial_ptr + batch * N * dim + n * dim + d, g, mask=inside)
    tl.store(dD_ptr + slot * dim + d, dskip, mask=inside)
    tl.store(dbias_ptr + slot * dim + d, dbias, mask=inside)
