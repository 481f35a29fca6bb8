"""The selective scan on a CPU, float32: numba with explicit SIMD, one lane a channel.

A task is one batch row and up to ``flat.CHANNELS`` channels. It goes through the sequence in tiles of TILE tokens: time
steps and inputs first, then the recurrence of one group of lanes after the other with the tile in cache, then the
skip and the gate. Only the states at tile borders are kept; backward runs a tile's recurrence again from there.
The reverse direction is the same code with a negative step, so nothing is flipped or copied.

Units inside: the decay is exp2(delta * a) with a = A / ln 2, and tiles are indexed in reading order.
"""

from __future__ import annotations

import numpy as np

from genossm.kernels.vector import (
    LANES,
    compiled,
    decay,
    fma,
    load,
    load_splat,
    prefetch,
    sigmoid,
    softplus,
    splat,
    store,
    total,
)

TILE = 64
LN2 = np.float32(0.6931471805599453)
ZERO = np.float32(0.0)
ONE = np.float32(1.0)


@compiled
def _prepare(u, dt, bias, mask, softplus_on, has_mask, u0, dt0, m0, us, dts, ms, bias0, count, groups, delta, du):
    """delta and delta * u of a tile, (groups, TILE, LANES) each."""
    for k in range(count):
        masked = has_mask and mask[m0 + k * ms] == 0
        for g in range(groups):
            o = (g * TILE + k) * LANES
            if masked:
                store(delta, o, splat(ZERO))
                store(du, o, splat(ZERO))
            else:
                x = load(dt, dt0 + k * dts + g * LANES) + load(bias, bias0 + g * LANES)
                if softplus_on:
                    x = softplus(x)
                store(delta, o, x)
                store(du, o, x * load(u, u0 + k * us + g * LANES))


@compiled
def _recur(
    delta, du, y, o, a, a0, B, C, b0, c0, bs, cs, reset, r0, rs, has_reset, h, h0, n_state, count,
    next1, n10, n1s, next2, n20, n2s,
):  # fmt: skip
    """One group of lanes through one tile: y, and the state in ``h`` moves on.

    Meanwhile two streams are asked for, a row a token: a task's rows lie too far apart for the hardware to guess.
    """
    for k in range(count):
        if has_reset and reset[r0 + k * rs] != 0:
            for n in range(n_state):
                store(h, h0 + n * LANES, splat(ZERO))
        prefetch(next1, n10 + k * n1s)
        prefetch(next2, n20 + k * n2s)
        d = load(delta, o + k * LANES)
        x = load(du, o + k * LANES)
        even = splat(ZERO)
        odd = splat(ZERO)
        b = b0 + k * bs
        c = c0 + k * cs
        for n in range(0, n_state, 2):
            i = h0 + n * LANES
            s = fma(decay(d * load(a, a0 + n * LANES)), load(h, i), x * load_splat(B, b + n))
            store(h, i, s)
            even = fma(s, load_splat(C, c + n), even)
            s = fma(decay(d * load(a, a0 + (n + 1) * LANES)), load(h, i + LANES), x * load_splat(B, b + n + 1))
            store(h, i + LANES, s)
            odd = fma(s, load_splat(C, c + n + 1), odd)
        store(y, o + k * LANES, even + odd)


@compiled
def forward_task(
    u, dt, a, B, C, D, z, bias, mask, reset, state, y, borders,
    us, dts, bs, cs, zs, ys, ms, u0, dt0, b0, c0, z0, y0, m0,
    softplus_on, has_z, has_mask, has_reset, save, channel0, groups, n_state, seqlen, border0, border_stride, state0,
):  # fmt: skip
    """One task of the forward pass; strides and offsets follow the reading order."""
    delta = np.empty(groups * TILE * LANES, np.float32)
    du = np.empty(groups * TILE * LANES, np.float32)
    out = np.empty(groups * TILE * LANES, np.float32)
    width = groups * n_state * LANES
    h = state[state0 : state0 + width]
    for tile in range((seqlen + TILE - 1) // TILE):
        t0 = tile * TILE
        count = min(TILE, seqlen - t0)
        if save:
            at = border0 + tile * border_stride
            borders[at : at + width] = h
        _prepare(
            u, dt, bias, mask, softplus_on, has_mask, u0 + t0 * us, dt0 + t0 * dts, m0 + t0 * ms, us, dts, ms,
            channel0, count, groups, delta, du,
        )  # fmt: skip
        for g in range(groups):
            # A line holds two groups of eight lanes: the even one asks for u and y, the odd one for dt and z.
            x, x0, xs, w, w0, ws = u, u0 + (t0 + TILE) * us, us, y, y0 + t0 * ys, ys
            if g % 2 == 1:
                x, x0, xs, w, w0, ws = dt, dt0 + (t0 + TILE) * dts, dts, dt, dt0 + (t0 + TILE) * dts, dts
                if has_z:
                    w, w0, ws = z, z0 + t0 * zs, zs
            _recur(
                delta, du, out, g * TILE * LANES, a, (channel0 + g * LANES) * n_state, B, C, b0 + t0 * bs, c0 + t0 * cs,
                bs, cs, reset, m0 + t0 * ms, ms, has_reset, h, g * n_state * LANES, n_state, count,
                x, x0 + g * LANES, xs, w, w0 + g * LANES, ws,
            )  # fmt: skip
        for k in range(count):
            t = t0 + k
            for g in range(groups):
                c = g * LANES
                value = fma(load(D, channel0 + c), load(u, u0 + t * us + c), load(out, (g * TILE + k) * LANES))
                if has_z:
                    gate = load(z, z0 + t * zs + c)
                    value = value * (gate * sigmoid(gate))
                store(y, y0 + t * ys + c, value)


@compiled
def _recompute(
    delta, du, y, o, a, a0, B, C, b0, c0, bs, cs, reset, r0, rs, has_reset, borders, h0, n_state, count, H, E, need_y,
    next1, n10, n1s, next2, n20, n2s,
):  # fmt: skip
    """The tile's states again: H[k] before token k, H[count] after the last; E[k] the decays (0 at a reset).

    Two streams are asked for as in :func:`_recur`.
    """
    for n in range(n_state):
        store(H, n * LANES, load(borders, h0 + n * LANES))
    for k in range(count):
        prefetch(next1, n10 + k * n1s)
        prefetch(next2, n20 + k * n2s)
        d = load(delta, o + k * LANES)
        x = load(du, o + k * LANES)
        i = k * n_state * LANES
        j = i + n_state * LANES
        b = b0 + k * bs
        c = c0 + k * cs
        closed = has_reset and reset[r0 + k * rs] != 0
        acc = splat(ZERO)
        for n in range(n_state):
            m = n * LANES
            e = decay(d * load(a, a0 + m))
            if closed:
                e = splat(ZERO)
            s = fma(e, load(H, i + m), x * load_splat(B, b + n))
            store(E, i + m, e)
            store(H, j + m, s)
            if need_y:
                acc = fma(s, load_splat(C, c + n), acc)
        if need_y:
            store(y, o + k * LANES, acc)


@compiled
def _backtrack(
    delta, du, go, gdelta, gu, o, a, a0, B, C, b0, c0, bs, cs, n_state, count, H, E, carry, carry0, dA, gB, gC,
    next1, n10, n1s, next2, n20, n2s,
):  # fmt: skip
    """Adjoints of one group over one tile, last token first. ``carry`` is dL/dh after the tile, then before it.

    Two streams are asked for as in :func:`_recur`.
    """
    for back in range(count):
        k = count - 1 - back
        prefetch(next1, n10 + k * n1s)
        prefetch(next2, n20 + k * n2s)
        d = load(delta, o + k * LANES)
        x = load(du, o + k * LANES)
        g = load(go, o + k * LANES)
        sum_delta = splat(ZERO)
        sum_u = splat(ZERO)
        i = k * n_state * LANES
        j = i + n_state * LANES
        b = b0 + k * bs
        c = c0 + k * cs
        for n in range(n_state):
            m = n * LANES
            dh = fma(load_splat(C, c + n), g, load(carry, carry0 + m))
            store(gC, i + m, fma(g, load(H, j + m), load(gC, i + m)))
            store(gB, i + m, fma(dh, x, load(gB, i + m)))
            sum_u = fma(dh, load_splat(B, b + n), sum_u)
            w = dh * load(E, i + m)
            store(carry, carry0 + m, w)
            q = w * load(H, i + m)
            sum_delta = fma(q, load(a, a0 + m), sum_delta)
            store(dA, carry0 + m, fma(q, d, load(dA, carry0 + m)))
        store(gu, o + k * LANES, sum_u)
        store(gdelta, o + k * LANES, sum_delta * splat(LN2))


@compiled
def backward_task(
    u, dt, a, B, C, D, z, bias, mask, reset, borders, dy, dstate, du_, ddt_, dz_, dB, dC, dA, dD, dbias,
    us, dts, bs, cs, zs, dys, ms, gus, gds, gzs, u0, dt0, b0, c0, z0, dy0, m0, gu0, gd0, gz0,
    softplus_on, has_z, has_mask, has_reset, channel0, groups, n_state, seqlen, border0, border_stride, state0,
    partial0, partial_stride,
):  # fmt: skip
    """One task of the backward pass; dB and dC are this task's share, dstate becomes the initial state's gradient."""
    size = groups * TILE * LANES
    delta, du, out = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    go, gdelta, gu = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    block = TILE * n_state * LANES
    H, E = np.empty(block + n_state * LANES, np.float32), np.empty(block, np.float32)
    gB, gC = np.empty(block, np.float32), np.empty(block, np.float32)
    for tile in range((seqlen + TILE - 1) // TILE - 1, -1, -1):
        t0 = tile * TILE
        count = min(TILE, seqlen - t0)
        _prepare(
            u, dt, bias, mask, softplus_on, has_mask, u0 + t0 * us, dt0 + t0 * dts, m0 + t0 * ms, us, dts, ms,
            channel0, count, groups, delta, du,
        )  # fmt: skip
        for k in range(count):
            for g in range(groups):
                value = load(dy, dy0 + (t0 + k) * dys + g * LANES)
                if has_z:
                    gate = load(z, z0 + (t0 + k) * zs + g * LANES)
                    value = value * (gate * sigmoid(gate))
                store(go, (g * TILE + k) * LANES, value)
        gB[: count * n_state * LANES] = 0
        gC[: count * n_state * LANES] = 0
        for g in range(groups):
            o = g * TILE * LANES
            a0 = (channel0 + g * LANES) * n_state
            w = g * n_state * LANES
            t1 = t0 - TILE
            # Even groups ask for u, dt and the rows of their gradients, odd ones for dy, z and its gradient.
            x, x0, xs, v, v0, vs = u, u0 + t1 * us, us, dt, dt0 + t1 * dts, dts
            r, r0, rs, q, q0, qs = du_, gu0 + t0 * gus, gus, ddt_, gd0 + t0 * gds, gds
            if g % 2 == 1:
                x, x0, xs, v, v0, vs = dy, dy0 + t1 * dys, dys, dy, dy0 + t1 * dys, dys
                if has_z:
                    v, v0, vs = z, z0 + t1 * zs, zs
                    r, r0, rs, q, q0, qs = dz_, gz0 + t0 * gzs, gzs, dz_, gz0 + t0 * gzs, gzs
            c = g * LANES
            _recompute(
                delta, du, out, o, a, a0, B, C, b0 + t0 * bs, c0 + t0 * cs, bs, cs, reset, m0 + t0 * ms, ms, has_reset,
                borders, border0 + tile * border_stride + w, n_state, count, H, E, has_z,
                x, x0 + c, xs, v, v0 + c, vs,
            )  # fmt: skip
            _backtrack(
                delta, du, go, gdelta, gu, o, a, a0, B, C, b0 + t0 * bs, c0 + t0 * cs, bs, cs, n_state, count, H, E,
                dstate[state0:], w, dA[state0:], gB, gC, r, r0 + c, rs, q, q0 + c, qs,
            )  # fmt: skip
        for k in range(count):
            p = partial0 + (t0 + k) * partial_stride
            for n in range(n_state):
                dB[p + n] = total(load(gB, (k * n_state + n) * LANES))
                dC[p + n] = total(load(gC, (k * n_state + n) * LANES))
            masked = has_mask and mask[m0 + (t0 + k) * ms] == 0
            for g in range(groups):
                c = g * LANES
                t = t0 + k
                o = (g * TILE + k) * LANES
                x = load(u, u0 + t * us + c)
                g_u, g_y, skip = load(gu, o), load(go, o), load(D, channel0 + c)
                slope = fma(g_u, x, load(gdelta, o))
                if masked:
                    slope = splat(ZERO)
                elif softplus_on:
                    slope = slope * sigmoid(load(dt, dt0 + t * dts + c) + load(bias, channel0 + c))
                store(ddt_, gd0 + t * gds + c, slope)
                store(du_, gu0 + t * gus + c, fma(g_u, load(delta, o), skip * g_y))
                if has_z:
                    gate = load(z, z0 + t * zs + c)
                    s = sigmoid(gate)
                    bend = s * fma(gate, splat(ONE) - s, splat(ONE))
                    value = fma(skip, x, load(out, o))
                    store(dz_, gz0 + t * gzs + c, load(dy, dy0 + t * dys + c) * value * bend)
                store(dD, state0 // n_state + c, fma(g_y, x, load(dD, state0 // n_state + c)))
                store(dbias, state0 // n_state + c, load(dbias, state0 // n_state + c) + slope)
