"""The scan of Mamba-2 on a CPU, float32: numba with explicit SIMD, lanes along the channels of a head.

Tokens go in blocks of SIZE. With e_k the decay of token k (0 where a segment starts), c_j the product of e_0 .. e_j,
l_ji that of e_(i+1) .. e_j, v = delta x and S the state in front of the block,

    y_j = c_j S^T C_j + sum_(i <= j) l_ji (C_j . B_i) v_i        S' = c_last S + sum_i l_last,i B_i v_i^T

so a token and state costs two multiply-adds where the plain recurrence takes three operations, and nothing waits for
the token before it. Decays are multiplied, never divided, so nothing overflows. Backward, with G the gradient of S',
o that of y and q_ji = o_j . v_i:

    dv_i = l_last,i G^T B_i + sum_(j >= i) l_ji (C_j . B_i) o_j        dS = c_last G + sum_j c_j C_j o_j^T
    dC_j = c_j S o_j + sum_(i <= j) l_ji q_ji B_i
    dB_i = l_last,i G v_i + sum_(j >= i) l_ji q_ji C_j
    dlog e_k = c_last <S, G> + sum_(i < k) l_last,i (G^T B_i) . v_i + sum_(j >= k) c_j (S^T C_j) . o_j
               + sum_(i < k <= j) l_ji (C_j . B_i) q_ji

A task is one batch row and a few heads of one group. Only states at tile borders are kept; backward makes those of a
tile's blocks again. ``size`` is the channels of a head, a multiple of 2 LANES; ``n_state`` is a multiple of LANES.
"""

from __future__ import annotations

import numpy as np

from genossm.kernels.vector import LANES, compiled, fma, load, load_splat, scratch, splat, store, total

SIZE, BLOCKS = 8, 16
TILE = SIZE * BLOCKS
ZERO = np.float32(0.0)
ONE = np.float32(1.0)


@compiled
def _read(C, c0, S, s0, n_state, size, kept, k0, m, v, v0, out):
    """out[j] = kept[j] sum over states of C[j, n] S[n] + sum over tokens of m[j, i] v[i]."""
    for j in range(0, SIZE, 4):
        d0, d1 = splat(kept[k0 + j]), splat(kept[k0 + j + 1])
        d2, d3 = splat(kept[k0 + j + 2]), splat(kept[k0 + j + 3])
        for p in range(0, size, 2 * LANES):
            a0, a1, a2, a3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
            b0, b1, b2, b3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
            for n in range(n_state):
                x, y = load(S, s0 + n * size + p), load(S, s0 + n * size + p + LANES)
                c = c0 + j * n_state + n
                w0, w1 = load_splat(C, c), load_splat(C, c + n_state)
                w2, w3 = load_splat(C, c + 2 * n_state), load_splat(C, c + 3 * n_state)
                a0, a1, a2, a3 = fma(x, w0, a0), fma(x, w1, a1), fma(x, w2, a2), fma(x, w3, a3)
                b0, b1, b2, b3 = fma(y, w0, b0), fma(y, w1, b1), fma(y, w2, b2), fma(y, w3, b3)
            a0, a1, a2, a3 = d0 * a0, d1 * a1, d2 * a2, d3 * a3
            b0, b1, b2, b3 = d0 * b0, d1 * b1, d2 * b2, d3 * b3
            for i in range(SIZE):
                x, y = load(v, v0 + i * size + p), load(v, v0 + i * size + p + LANES)
                c = j * SIZE + i
                w0, w1 = load_splat(m, c), load_splat(m, c + SIZE)
                w2, w3 = load_splat(m, c + 2 * SIZE), load_splat(m, c + 3 * SIZE)
                a0, a1, a2, a3 = fma(x, w0, a0), fma(x, w1, a1), fma(x, w2, a2), fma(x, w3, a3)
                b0, b1, b2, b3 = fma(y, w0, b0), fma(y, w1, b1), fma(y, w2, b2), fma(y, w3, b3)
            _store4(out, j * size + p, size, a0, a1, a2, a3)
            _store4(out, j * size + p + LANES, size, b0, b1, b2, b3)


@compiled
def _store4(V, o, step, a, b, c, d):
    store(V, o, a)
    store(V, o + step, b)
    store(V, o + 2 * step, c)
    store(V, o + 3 * step, d)


@compiled
def _write(S, s0, out, o0, keep, B, b0, v, n_state, size):
    """out[n] = keep S[n] + sum over tokens of B[i, n] v[i]."""
    k = splat(keep)
    for n in range(0, n_state, 4):
        for p in range(0, size, 2 * LANES):
            s = s0 + n * size + p
            a0, a1 = k * load(S, s), k * load(S, s + size)
            a2, a3 = k * load(S, s + 2 * size), k * load(S, s + 3 * size)
            s += LANES
            c0, c1 = k * load(S, s), k * load(S, s + size)
            c2, c3 = k * load(S, s + 2 * size), k * load(S, s + 3 * size)
            for i in range(SIZE):
                x, y = load(v, i * size + p), load(v, i * size + p + LANES)
                b = b0 + i * n_state + n
                k0, k1, k2, k3 = load_splat(B, b), load_splat(B, b + 1), load_splat(B, b + 2), load_splat(B, b + 3)
                a0, a1, a2, a3 = fma(x, k0, a0), fma(x, k1, a1), fma(x, k2, a2), fma(x, k3, a3)
                c0, c1, c2, c3 = fma(y, k0, c0), fma(y, k1, c1), fma(y, k2, c2), fma(y, k3, c3)
            _store4(out, o0 + n * size + p, size, a0, a1, a2, a3)
            _store4(out, o0 + n * size + p + LANES, size, c0, c1, c2, c3)


@compiled
def _cross(v, S, s0, n_state, size, out):
    """out[j, n] = v[j] . S[n], its lanes not yet summed."""
    for j in range(0, SIZE, 4):
        for n in range(0, n_state, 2):
            a0, a1, a2, a3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
            b0, b1, b2, b3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
            for p in range(0, size, LANES):
                x, y = load(S, s0 + n * size + p), load(S, s0 + (n + 1) * size + p)
                o = j * size + p
                v0, v1, v2, v3 = load(v, o), load(v, o + size), load(v, o + 2 * size), load(v, o + 3 * size)
                a0, a1, a2, a3 = fma(x, v0, a0), fma(x, v1, a1), fma(x, v2, a2), fma(x, v3, a3)
                b0, b1, b2, b3 = fma(y, v0, b0), fma(y, v1, b1), fma(y, v2, b2), fma(y, v3, b3)
            _store4(out, (j * n_state + n) * LANES, n_state * LANES, a0, a1, a2, a3)
            _store4(out, (j * n_state + n + 1) * LANES, n_state * LANES, b0, b1, b2, b3)


@compiled
def _dot(a, a0, b, b0, count):
    even, odd = splat(ZERO), splat(ZERO)
    for k in range(0, count - LANES, 2 * LANES):
        even = fma(load(a, a0 + k), load(b, b0 + k), even)
        odd = fma(load(a, a0 + k + LANES), load(b, b0 + k + LANES), odd)
    if count % (2 * LANES) != 0:
        even = fma(load(a, a0 + count - LANES), load(b, b0 + count - LANES), even)
    return total(even + odd)


@compiled
def _products(C, c0, B, b0, n_state, out, o0):
    """out[j, i] = C_j . B_i for i <= j."""
    for j in range(SIZE):
        for i in range(j + 1):
            out[o0 + j * SIZE + i] = _dot(C, c0 + j * n_state, B, b0 + i * n_state, n_state)


@compiled
def _decays(e, e0, M, m0, c, l, m, turned):
    """c_j, l_ji and the weights l_ji (C_j . B_i) of a block, those also ``turned``: [i, j]."""
    product = ONE
    for j in range(SIZE):
        product *= e[e0 + j]
        c[j] = product
        l[j * SIZE + j] = ONE
        for i in range(j):
            l[j * SIZE + i] = l[(j - 1) * SIZE + i] * e[e0 + j]
        for i in range(SIZE):
            w = M[m0 + j * SIZE + i] * l[j * SIZE + i] if i <= j else ZERO
            m[j * SIZE + i] = w
            turned[i * SIZE + j] = w


@compiled
def _scaled(v, v0, weights, w0, size, out):
    """out[j] = weights[j] v[j]."""
    for j in range(SIZE):
        w = splat(weights[w0 + j])
        for p in range(0, size, LANES):
            store(out, j * size + p, w * load(v, v0 + j * size + p))


@compiled
def _stage(x, x0, xs, count, width, out):
    """``count`` rows of ``width`` numbers, dense, zeros behind them."""
    out[:] = ZERO
    for t in range(count):
        for p in range(0, width, LANES):
            store(out, t * width + p, load(x, x0 + t * xs + p))


@compiled
def _steps(delta, e, d0, ds, count, steps, decays):
    """Time steps and decays of a tile's head; behind its end the state stays as it is."""
    for t in range(TILE):
        steps[t] = delta[d0 + t * ds] if t < count else ZERO
        decays[t] = e[d0 + t * ds] if t < count else ONE


@compiled
def _inputs(x, x0, xs, steps, count, size, v):
    """v = delta x of a tile's head."""
    v[:] = ZERO
    for t in range(count):
        d = splat(steps[t])
        for p in range(0, size, LANES):
            store(v, t * size + p, d * load(x, x0 + t * xs + p))


@compiled
def forward_task(
    x, delta, e, B, C, D, state, y, borders, xs, ds, bs, cs, ys, x0, d0, b0, c0, y0,
    skip, save, head0, heads, size, n_state, seqlen, border0, border_stride, state0,
):  # fmt: skip
    """One task of the forward pass; strides and offsets follow the reading order, ``state`` moves to the last one."""
    tile_B, tile_C = scratch(TILE * n_state), scratch(TILE * n_state)
    steps, decays, v = scratch(TILE), scratch(TILE), scratch(TILE * size)
    M, c, l = scratch(BLOCKS * SIZE * SIZE), scratch(SIZE), scratch(SIZE * SIZE)
    m, turned, read, w = scratch(SIZE * SIZE), scratch(SIZE * SIZE), scratch(SIZE * size), scratch(SIZE * size)
    wide = n_state * size
    for tile in range((seqlen + TILE - 1) // TILE):
        t0 = tile * TILE
        count = min(TILE, seqlen - t0)
        blocks = (count + SIZE - 1) // SIZE
        if save:
            at = border0 + tile * border_stride
            borders[at : at + heads * wide] = state[state0 : state0 + heads * wide]
        _stage(B, b0 + t0 * bs, bs, count, n_state, tile_B)
        _stage(C, c0 + t0 * cs, cs, count, n_state, tile_C)
        for k in range(blocks):
            at = k * SIZE * n_state
            _products(tile_C, at, tile_B, at, n_state, M, k * SIZE * SIZE)
        for h in range(heads):
            s0, xh, yh = state0 + h * wide, x0 + t0 * xs + h * size, y0 + t0 * ys + h * size
            _steps(delta, e, d0 + t0 * ds + h, ds, count, steps, decays)
            _inputs(x, xh, xs, steps, count, size, v)
            for k in range(blocks):
                at, token = k * SIZE * n_state, k * SIZE * size
                _decays(decays, k * SIZE, M, k * SIZE * SIZE, c, l, m, turned)
                _read(tile_C, at, state, s0, n_state, size, c, 0, m, v, token, read)
                for j in range(min(SIZE, count - k * SIZE)):
                    t = k * SIZE + j
                    for p in range(0, size, LANES):
                        value = load(read, j * size + p)
                        if skip:
                            value = fma(load(D, (head0 + h) * size + p), load(x, xh + t * xs + p), value)
                        store(y, yh + t * ys + p, value)
                _scaled(v, token, l, (SIZE - 1) * SIZE, size, w)
                _write(state, s0, state, s0, c[SIZE - 1], tile_B, at, w, n_state, size)


@compiled
def _pairs(dy, y0, v, v0, l, size, q, lq):
    """q_ji and l_ji q_ji."""
    for j in range(SIZE):
        for i in range(j + 1):
            at = j * SIZE + i
            q[at] = _dot(dy, y0 + j * size, v, v0 + i * size, size)
            lq[at] = l[at] * q[at]


@compiled
def _share(lq, tile_B, tile_C, at, n_state, gB, gC):
    """What the pairs of a block give to dB and dC."""
    for j in range(SIZE):
        for i in range(j + 1):
            w = splat(lq[j * SIZE + i])
            b, c = at + i * n_state, at + j * n_state
            for n in range(0, n_state, LANES):
                store(gC, c + n, fma(w, load(tile_B, b + n), load(gC, c + n)))
                store(gB, b + n, fma(w, load(tile_C, c + n), load(gB, b + n)))


@compiled
def _collect(cross, tile, at, n_state, sums, out):
    """Add a head's products to its group's; out[j] = sum over states of tile[j, n] cross[j, n]."""
    for j in range(SIZE):
        value = splat(ZERO)
        for n in range(n_state):
            k = j * n_state + n
            part = load(cross, k * LANES)
            store(sums, (at + k) * LANES, load(sums, (at + k) * LANES) + part)
            value = fma(load_splat(tile, at + k), part, value)
        out[j] = total(value)


@compiled
def _decay_gradient(state_part, from_inputs, from_state, m, q, out, o0):
    """dlog e of a block, each sum formed by itself: nothing large cancels."""
    before = state_part
    for k in range(SIZE):
        value = before
        for j in range(k, SIZE):
            value += from_state[j]
            for i in range(k):
                value += m[j * SIZE + i] * q[j * SIZE + i]
        out[o0 + k] = value
        before += from_inputs[k]


@compiled
def backward_task(
    x, delta, e, B, C, D, dy, borders, dx, ddelta, dloge, dB, dC, dD, g,
    xs, ds, bs, cs, ys, gs, x0, d0, b0, c0, y0, g0,
    skip, head0, heads, size, n_state, seqlen, border0, border_stride, state0, partial0, partial_stride, skip0,
):  # fmt: skip
    """One task of the backward pass; dB and dC are its share, ``g`` (the last state's) becomes the initial state's."""
    wide, area, pairs = n_state * size, TILE * n_state, SIZE * SIZE
    tile_B, tile_C, gB, gC = scratch(area), scratch(area), scratch(area), scratch(area)
    sum_B, sum_C, cross = scratch(area * LANES), scratch(area * LANES), scratch(SIZE * n_state * LANES)
    steps, decays, dlog = scratch(TILE), scratch(TILE), scratch(TILE)
    v, o, S = scratch(TILE * size), scratch(TILE * size), scratch((BLOCKS + 1) * wide)
    M, c, l, q, lq = scratch(BLOCKS * pairs), scratch(SIZE), scratch(pairs), scratch(pairs), scratch(pairs)
    m, turned = scratch(pairs), scratch(pairs)
    w, read, from_inputs, from_state = scratch(SIZE * size), scratch(SIZE * size), scratch(SIZE), scratch(SIZE)
    for tile in range((seqlen + TILE - 1) // TILE - 1, -1, -1):
        t0 = tile * TILE
        count = min(TILE, seqlen - t0)
        blocks = (count + SIZE - 1) // SIZE
        _stage(B, b0 + t0 * bs, bs, count, n_state, tile_B)
        _stage(C, c0 + t0 * cs, cs, count, n_state, tile_C)
        gB[:], gC[:], sum_B[:], sum_C[:] = ZERO, ZERO, ZERO, ZERO
        for k in range(blocks):
            _products(tile_C, k * SIZE * n_state, tile_B, k * SIZE * n_state, n_state, M, k * pairs)
        for h in range(heads):
            s0, xh, channel = state0 + h * wide, x0 + t0 * xs + h * size, (head0 + h) * size
            _steps(delta, e, d0 + t0 * ds + h, ds, count, steps, decays)
            _inputs(x, xh, xs, steps, count, size, v)
            _head(
                v, o, dy, y0 + t0 * ys + h * size, ys, count, blocks,
                borders, border0 + tile * border_stride + h * wide, tile_B, tile_C, M, decays, S, g, s0, gB, gC,
                sum_B, sum_C, cross, c, l, q, lq, m, turned, w, read, from_inputs, from_state, dlog, size, n_state,
            )  # fmt: skip
            for t in range(count):
                step, slope = splat(steps[t]), splat(ZERO)
                gt = g0 + (t0 + t) * gs + h * size
                for p in range(0, size, LANES):
                    u, dv = load(x, xh + t * xs + p), load(v, t * size + p)
                    slope = fma(u, dv, slope)
                    value = step * dv
                    if skip:
                        back = load(o, t * size + p)
                        value = fma(load(D, channel + p), back, value)
                        store(dD, skip0 + h * size + p, fma(back, u, load(dD, skip0 + h * size + p)))
                    store(dx, gt + p, value)
                ddelta[d0 + (t0 + t) * ds + h] = total(slope)
                dloge[d0 + (t0 + t) * ds + h] = dlog[t]
        for t in range(count):
            at = partial0 + (t0 + t) * partial_stride
            for n in range(n_state):
                dB[at + n] = gB[t * n_state + n] + total(load(sum_B, (t * n_state + n) * LANES))
                dC[at + n] = gC[t * n_state + n] + total(load(sum_C, (t * n_state + n) * LANES))


@compiled
def _head(
    v, o, dy, y0, ys, count, blocks, borders, border, tile_B, tile_C, M, decays, S, g, s0, gB, gC, sum_B, sum_C, cross,
    c, l, q, lq, m, turned, w, read, from_inputs, from_state, dlog, size, n_state,
):  # fmt: skip
    """One head of a tile, its blocks from the last to the first: ``v`` becomes its own gradient."""
    wide = n_state * size
    _stage(dy, y0, ys, count, size, o)
    S[:wide] = borders[border : border + wide]
    for k in range(blocks):
        _decays(decays, k * SIZE, M, k * SIZE * SIZE, c, l, m, turned)
        _scaled(v, k * SIZE * size, l, (SIZE - 1) * SIZE, size, w)
        _write(S, k * wide, S, (k + 1) * wide, c[SIZE - 1], tile_B, k * SIZE * n_state, w, n_state, size)
    for back in range(blocks):
        k = blocks - 1 - back
        at, token = k * SIZE * n_state, k * SIZE * size
        _decays(decays, k * SIZE, M, k * SIZE * SIZE, c, l, m, turned)
        _pairs(o, token, v, token, l, size, q, lq)
        _share(lq, tile_B, tile_C, at, n_state, gB, gC)
        _scaled(v, token, l, (SIZE - 1) * SIZE, size, w)
        _cross(w, g, s0, n_state, size, cross)
        _collect(cross, tile_B, at, n_state, sum_B, from_inputs)
        kept = c[SIZE - 1] * _dot(S, k * wide, g, s0, wide)
        _read(tile_B, at, g, s0, n_state, size, l, (SIZE - 1) * SIZE, turned, o, token, read)
        v[token : token + SIZE * size] = read
        _scaled(o, token, c, 0, size, w)
        _cross(w, S, k * wide, n_state, size, cross)
        _collect(cross, tile_C, at, n_state, sum_C, from_state)
        _decay_gradient(kept, from_inputs, from_state, m, q, dlog, k * SIZE)
        _write(g, s0, g, s0, c[SIZE - 1], tile_C, at, w, n_state, size)
