"""The scan of Mamba-2 in Triton, chunk by chunk: matrix products inside a chunk, one decayed state between chunks.

With c_j the decay from the entry of a chunk to token j, l_ji that from token i to token j, x_i the decay from token i
to the end, v = delta x and S the state in front of the chunk (Mamba-2, arXiv:2405.21060, section 6):

    added = sum_i x_i B_i v_i^T  (``ssd_gather``)      S <- keep S + added  (``ssd_carry``)
    y_j = c_j S^T C_j + sum_(i <= j) l_ji (C_j . B_i) v_i  (``ssd_output``)

Backward takes the same two kernels for what a chunk sends back, sum_j c_j C_j dy_j^T, and its carry against the
reading order; ``ssd_backward`` then has a chunk's entry state and the gradient of its last one, and is alone in writing
what it writes.

Layouts: x, y, dy (batch, seqlen, heads, headdim) and B, C (batch, seqlen, groups, dstate) in memory order, with any
strides but a dense last axis; ``first`` and STEP turn the reading order into a row. All that is one number a token and
head (time steps, decays, their products: the launcher makes them) is float32 (batch, chunks * Q, heads) in reading
order; ``cuts`` (batch, chunks * Q) int32 counts the segments that started in the chunk so far. States are float32
(batch, chunks, heads, dstate, headdim). Blocks of P channels and N states are powers of two, at least 16.
"""

from __future__ import annotations

import triton
import triton.language as tl

from genossm.kernels.triton_math import lanes_if


@triton.jit
def load_rows(pointer, rows, step, columns, count, here):
    """(Q, columns) of a tensor in memory order, zero outside."""
    inside = here[:, None] & (columns < count)[None, :]
    return tl.load(pointer + rows[:, None] * step + columns[None, :], mask=inside, other=0.0)


@triton.jit
def decays(cum_ptr, cuts_ptr, base, t, heads, Q: tl.constexpr, CUT: tl.constexpr):
    """l_ji of a chunk, (j, i), zero above the diagonal and across segments; the token axis of ``base`` is dense."""
    cum = tl.load(cum_ptr + (base + t) * heads)
    lag = cum[:, None] - cum[None, :]
    visible = t[:, None] >= t[None, :]
    if CUT:
        stretch = tl.load(cuts_ptr + base + t)
        visible = visible & (stretch[:, None] == stretch[None, :])
    return tl.exp(tl.where(visible, lag, -float("inf")))


@triton.jit
def ssd_gather(
    v_ptr, weight_ptr, B_ptr, out_ptr, seqlen, heads, per_group, headdim, dstate, first,
    v_b, v_t, v_h, B_b, B_t, B_g, STEP: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """out = sum over a chunk's tokens of weight_t B_t v_t^T."""
    chunk, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    t, p, n = tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    here = chunk * Q + t < seqlen
    rows = (first + (chunk * Q + t) * STEP).to(tl.int64)
    weight = tl.load(weight_ptr + (batch * tl.num_programs(0) * Q + chunk * Q + t) * heads + head)
    v = load_rows(v_ptr + batch * v_b + head * v_h, rows, v_t, p, headdim, here)
    B = load_rows(B_ptr + batch * B_b + head // per_group * B_g, rows, B_t, n, dstate, here)
    scaled = (B.to(tl.float32) * weight[:, None]).to(v.dtype)
    state = tl.dot(tl.trans(scaled), v, input_precision="ieee")
    at = ((batch * tl.num_programs(0) + chunk) * heads + head) * dstate * headdim
    inside = (n < dstate)[:, None] & (p < headdim)[None, :]
    tl.store(out_ptr + at + n[:, None] * headdim + p[None, :], state, mask=inside)


@triton.jit
def ssd_carry(
    values_ptr, keep_ptr, initial_ptr, final_ptr, chunks, heads, size, first, step,
    GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """In place: what each chunk adds becomes what it starts from; GROUP chunks are loaded before the first is used."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    h = tl.load(initial_ptr + (batch * heads + head) * size + i, mask=inside, other=0.0)
    for c in range(0, chunks, GROUP):
        added = ()
        keep = ()
        for k in tl.static_range(GROUP):
            slot = (batch * chunks + first + (c + k) * step) * heads + head
            added = added + (tl.load(values_ptr + slot * size + i, mask=lanes_if(i, size, c + k < chunks), other=0.0),)
            keep = keep + (tl.load(keep_ptr + slot, mask=c + k < chunks, other=1.0),)
        for k in tl.static_range(GROUP):
            slot = (batch * chunks + first + (c + k) * step) * heads + head
            tl.store(values_ptr + slot * size + i, h, mask=lanes_if(i, size, c + k < chunks))
            h = keep[k] * h + added[k]
    tl.store(final_ptr + (batch * heads + head) * size + i, h, mask=inside)


@triton.jit
def ssd_output(
    x_ptr, delta_ptr, cum_ptr, entry_ptr, cuts_ptr, B_ptr, C_ptr, D_ptr, states_ptr, y_ptr,
    seqlen, heads, per_group, headdim, dstate, first, x_b, x_t, x_h, B_b, B_t, B_g, C_b, C_t, C_g,
    SKIP: tl.constexpr, CUT: tl.constexpr, STEP: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """y of a chunk and head from its entry state."""
    chunk, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    t, p, n = tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    here = chunk * Q + t < seqlen
    rows = (first + (chunk * Q + t) * STEP).to(tl.int64)
    base = batch * tl.num_programs(0) * Q + chunk * Q
    group = head // per_group
    B = load_rows(B_ptr + batch * B_b + group * B_g, rows, B_t, n, dstate, here)
    C = load_rows(C_ptr + batch * C_b + group * C_g, rows, C_t, n, dstate, here)
    weights = tl.dot(C, tl.trans(B), input_precision="ieee")
    weights *= decays(cum_ptr + head, cuts_ptr, base, t, heads, Q, CUT)
    x = load_rows(x_ptr + batch * x_b + head * x_h, rows, x_t, p, headdim, here)
    v = x.to(tl.float32) * tl.load(delta_ptr + (base + t) * heads + head)[:, None]
    at = ((batch * tl.num_programs(0) + chunk) * heads + head) * dstate * headdim
    inside = (n < dstate)[:, None] & (p < headdim)[None, :]
    state = tl.load(states_ptr + at + n[:, None] * headdim + p[None, :], mask=inside, other=0.0)
    y = tl.dot(C, state.to(C.dtype), input_precision="ieee")
    y *= tl.load(entry_ptr + (base + t) * heads + head)[:, None]
    y += tl.dot(weights.to(x.dtype), v.to(x.dtype), input_precision="ieee")
    if SKIP:
        y += tl.load(D_ptr + head * headdim + p, mask=p < headdim, other=0.0)[None, :] * x.to(tl.float32)
    out = y_ptr + ((batch * seqlen + rows) * heads + head)[:, None] * headdim + p[None, :]
    tl.store(out, y.to(y_ptr.dtype.element_ty), mask=here[:, None] & (p < headdim)[None, :])


@triton.jit
def ssd_backward(
    x_ptr, delta_ptr, cum_ptr, entry_ptr, exit_ptr, keep_ptr, cuts_ptr, B_ptr, C_ptr, D_ptr, dy_ptr, states_ptr,
    adjoint_ptr, dx_ptr, ddelta_ptr, crossing_ptr, outflow_ptr, inflow_ptr, kept_ptr, dB_ptr, dC_ptr, dD_ptr,
    seqlen, heads, per_group, headdim, dstate, first, x_b, x_t, x_h, B_b, B_t, B_g, C_b, C_t, C_g, dy_b, dy_t, dy_h,
    SKIP: tl.constexpr, CUT: tl.constexpr, STEP: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Every gradient of a chunk and head; dB and dC are this head's share.

    The gradient of the logarithm of decay k is ``crossing`` (what tokens from k on take of tokens before it), plus the
    launcher's sums of ``outflow`` (what a token takes of the entry state) from k on, of ``inflow`` (what a token gives
    to the last state) before k, and ``kept`` (one number a chunk): nothing large cancels.
    """
    chunk, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    t, p, n = tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    here = chunk * Q + t < seqlen
    rows = (first + (chunk * Q + t) * STEP).to(tl.int64)
    base = batch * tl.num_programs(0) * Q + chunk * Q
    own = (base + t) * heads + head
    group = head // per_group
    B = load_rows(B_ptr + batch * B_b + group * B_g, rows, B_t, n, dstate, here)
    C = load_rows(C_ptr + batch * C_b + group * C_g, rows, C_t, n, dstate, here)
    x = load_rows(x_ptr + batch * x_b + head * x_h, rows, x_t, p, headdim, here)
    dy = load_rows(dy_ptr + batch * dy_b + head * dy_h, rows, dy_t, p, headdim, here)
    slot = (batch * tl.num_programs(0) + chunk) * heads + head
    inside = (n < dstate)[:, None] & (p < headdim)[None, :]
    corner = slot * dstate * headdim + n[:, None] * headdim + p[None, :]
    adjoint = tl.load(adjoint_ptr + corner, mask=inside, other=0.0)
    delta = tl.load(delta_ptr + own)
    leaving = tl.load(exit_ptr + own)
    v = x.to(tl.float32) * delta[:, None]
    l = decays(cum_ptr + head, cuts_ptr, base, t, heads, Q, CUT)
    weights = tl.dot(C, tl.trans(B), input_precision="ieee") * l
    pairs = tl.dot(dy, tl.trans(v.to(x.dtype)), input_precision="ieee")

    sent = tl.dot(B, adjoint.to(B.dtype), input_precision="ieee") * leaving[:, None]
    tl.store(inflow_ptr + own, tl.sum(sent * v, axis=1))
    dv = sent + tl.dot(tl.trans(weights.to(dy.dtype)), dy, input_precision="ieee")
    tl.store(ddelta_ptr + own, tl.sum(dv * x.to(tl.float32), axis=1))
    dx = dv * delta[:, None]
    columns = p < headdim
    if SKIP:
        dx += tl.load(D_ptr + head * headdim + p, mask=columns, other=0.0)[None, :] * dy.to(tl.float32)
        dD = tl.sum(dy.to(tl.float32) * x.to(tl.float32), axis=0)
        tl.store(dD_ptr + slot * headdim + p, dD, mask=columns)
    out = dx_ptr + ((batch * seqlen + rows) * heads + head)[:, None] * headdim + p[None, :]
    tl.store(out, dx.to(dx_ptr.dtype.element_ty), mask=here[:, None] & columns[None, :])

    state = tl.load(states_ptr + corner, mask=inside, other=0.0)
    tl.store(kept_ptr + slot, tl.load(keep_ptr + slot) * tl.sum(state * adjoint))
    strict = tl.where(t[:, None] > t[None, :], weights * pairs, 0.0)
    entering = tl.load(entry_ptr + own)
    from_state = tl.dot(dy, tl.trans(state.to(dy.dtype)), input_precision="ieee") * entering[:, None]
    tl.store(outflow_ptr + own, tl.sum(from_state * C.to(tl.float32), axis=1))
    onward = tl.cumsum(strict, axis=0, reverse=True)
    tl.store(crossing_ptr + own, tl.sum(tl.where(t[:, None] > t[None, :], onward, 0.0), axis=1))
    shared = (pairs * l).to(B.dtype)
    place = ((batch * seqlen + rows) * heads + head)[:, None] * dstate + n[None, :]
    written = here[:, None] & (n < dstate)[None, :]
    tl.store(dC_ptr + place, from_state + tl.dot(shared, B, input_precision="ieee"), mask=written)
    dB = tl.dot(v.to(x.dtype), tl.trans(adjoint.to(x.dtype)), input_precision="ieee") * leaving[:, None]
    tl.store(dB_ptr + place, dB + tl.dot(tl.trans(shared), C, input_precision="ieee"), mask=written)
