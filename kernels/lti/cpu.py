"""The diagonal state space on a CPU, float32: numba with explicit SIMD, one lane a channel.

Tokens go in blocks of SIZE. What a block adds to the state, what it reads of the state it finds and what its tokens
give each other are three small products with tables made from exponents (``op.py``), four multiply-adds a token and
state where the recurrence needs six; from block to block the state takes one step, x + (w^SIZE - 1) x + inflow, whose
small factor keeps the digits of a slow decay. A tile is BLOCKS blocks, so that the products run with everything in
registers; STATES states of it are taken at a time, which stay in the first cache level, and a task is one batch row and
up to GROUPS groups of lanes, whose tables stay in the second. Backward makes the entry states of a tile's blocks again
from the one at its border, and gives the gradients of the tables; autograd takes those back to the parameters.

Which tokens make up a block is a list of positions, -1 for none: direction, padding and packing need nothing else.

Layouts, LANES numbers each: tables [state][part][token], states [state][part][block], tokens [token][block], with
part 0 real and 1 imaginary. The number of states is even.
"""

from __future__ import annotations

import numpy as np

from genossm.kernels.vector import LANES, LINE, compiled, fma, load, prefetch, scratch, splat, store

SIZE, BLOCKS, GROUPS, STATES = 8, 16, 4, 8
TILE = SIZE * BLOCKS
ZERO = np.float32(0.0)


@compiled
def plan(mask, reset, has_mask, has_reset, reverse, seqlen, positions, clear, blocks, tokens):
    """The tokens of every block in reading order; a segment starts a block.

    Also how many blocks each row has, and how many tokens its last block.
    """
    for b in range(len(blocks)):
        cursor = 0
        for k in range(seqlen):
            t = seqlen - 1 - k if reverse else k
            if has_mask and mask[b, t] == 0:
                continue
            if has_reset and reset[b, t] != 0:
                cursor = (cursor + SIZE - 1) // SIZE * SIZE
                clear[b, cursor // SIZE] = 1
            positions[b, cursor] = t
            cursor += 1
        blocks[b] = (cursor + SIZE - 1) // SIZE
        tokens[b] = (cursor - 1) % SIZE + 1


@compiled
def _gather(x, x0, xs, positions, p0, groups, V):
    """A tile's tokens of all groups, zero where there is none."""
    for k in range(TILE):
        t = positions[p0 + k]
        o = (k % SIZE * BLOCKS + k // SIZE) * LANES
        for g in range(groups):
            value = splat(ZERO)
            if t >= 0:
                value = load(x, x0 + t * xs + g * LANES)
            store(V, g * TILE * LANES + o, value)


@compiled
def _ask(x, x0, xs, positions, p0, groups, g):
    """Prefetch group ``g``'s share of a tile's rows: they lie too far apart for the hardware to guess."""
    share = (TILE + groups - 1) // groups
    for k in range(p0 + g * share, min(p0 + (g + 1) * share, len(positions))):
        for c in range(0, groups * LANES, LINE):
            prefetch(x, x0 + positions[k] * xs + c)


@compiled
def _scatter(V, positions, p0, groups, y, y0, ys):
    for k in range(TILE):
        t = positions[p0 + k]
        if t >= 0:
            o = (k % SIZE * BLOCKS + k // SIZE) * LANES
            for g in range(groups):
                store(y, y0 + t * ys + g * LANES, load(V, g * TILE * LANES + o))


@compiled
def _into_states(T, t0, V, v0, S, n_state):
    """S[n, part, b] = sum over tokens j of T[n, part, j] V[j, b]."""
    for n in range(n_state):
        for b in range(0, BLOCKS, 4):
            r0, r1, r2, r3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
            i0, i1, i2, i3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
            for j in range(SIZE):
                re = load(T, t0 + (2 * n * SIZE + j) * LANES)
                im = load(T, t0 + (2 * n * SIZE + SIZE + j) * LANES)
                o = v0 + (j * BLOCKS + b) * LANES
                x0, x1 = load(V, o), load(V, o + LANES)
                x2, x3 = load(V, o + 2 * LANES), load(V, o + 3 * LANES)
                r0, r1, r2, r3 = fma(re, x0, r0), fma(re, x1, r1), fma(re, x2, r2), fma(re, x3, r3)
                i0, i1, i2, i3 = fma(im, x0, i0), fma(im, x1, i1), fma(im, x2, i2), fma(im, x3, i3)
            s = (2 * n * BLOCKS + b) * LANES
            _store4(S, s, r0, r1, r2, r3)
            _store4(S, s + BLOCKS * LANES, i0, i1, i2, i3)


@compiled
def _store4(V, o, a, b, c, d):
    store(V, o, a)
    store(V, o + LANES, b)
    store(V, o + 2 * LANES, c)
    store(V, o + 3 * LANES, d)


@compiled
def _from_states(T, t0, S, V, v0, n_state):
    """V[j, b] += sum over states and parts of T[n, part, j] S[n, part, b]."""
    for j in range(0, SIZE, 2):
        for b in range(0, BLOCKS, 4):
            o = v0 + (j * BLOCKS + b) * LANES
            p = o + BLOCKS * LANES
            a0, a1, a2, a3 = load(V, o), load(V, o + LANES), load(V, o + 2 * LANES), load(V, o + 3 * LANES)
            c0, c1, c2, c3 = load(V, p), load(V, p + LANES), load(V, p + 2 * LANES), load(V, p + 3 * LANES)
            for m in range(2 * n_state):
                w0, w1 = load(T, t0 + (m * SIZE + j) * LANES), load(T, t0 + (m * SIZE + j + 1) * LANES)
                s = (m * BLOCKS + b) * LANES
                x0, x1, x2, x3 = load(S, s), load(S, s + LANES), load(S, s + 2 * LANES), load(S, s + 3 * LANES)
                a0, a1, a2, a3 = fma(w0, x0, a0), fma(w0, x1, a1), fma(w0, x2, a2), fma(w0, x3, a3)
                c0, c1, c2, c3 = fma(w1, x0, c0), fma(w1, x1, c1), fma(w1, x2, c2), fma(w1, x3, c3)
            _store4(V, o, a0, a1, a2, a3)
            _store4(V, p, c0, c1, c2, c3)


@compiled
def _outer(D, d0, V, v0, S, n_state):
    """D[n, part, j] += sum over blocks of V[j, b] S[n, part, b]."""
    for n in range(n_state):
        for j in range(0, SIZE, 4):
            r = d0 + (2 * n * SIZE + j) * LANES
            i = r + SIZE * LANES
            r0, r1, r2, r3 = load(D, r), load(D, r + LANES), load(D, r + 2 * LANES), load(D, r + 3 * LANES)
            i0, i1, i2, i3 = load(D, i), load(D, i + LANES), load(D, i + 2 * LANES), load(D, i + 3 * LANES)
            for b in range(BLOCKS):
                re, im = load(S, (2 * n * BLOCKS + b) * LANES), load(S, ((2 * n + 1) * BLOCKS + b) * LANES)
                o = v0 + (j * BLOCKS + b) * LANES
                x0, x1 = load(V, o), load(V, o + BLOCKS * LANES)
                x2, x3 = load(V, o + 2 * BLOCKS * LANES), load(V, o + 3 * BLOCKS * LANES)
                r0, r1, r2, r3 = fma(re, x0, r0), fma(re, x1, r1), fma(re, x2, r2), fma(re, x3, r3)
                i0, i1, i2, i3 = fma(im, x0, i0), fma(im, x1, i1), fma(im, x2, i2), fma(im, x3, i3)
            _store4(D, r, r0, r1, r2, r3)
            _store4(D, i, i0, i1, i2, i3)


@compiled
def _among_tokens(K, k0, V, Y, v0, backwards):
    """Y[j, b] = sum over i <= j of K[j - i] V[i, b]; ``backwards`` i >= j and K[i - j]."""
    for j in range(SIZE):
        first, last = (j, SIZE) if backwards else (0, j + 1)
        for b in range(0, BLOCKS, 4):
            a0, a1, a2, a3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
            for i in range(first, last):
                k = load(K, k0 + abs(i - j) * LANES)
                o = v0 + (i * BLOCKS + b) * LANES
                a0, a1 = fma(k, load(V, o), a0), fma(k, load(V, o + LANES), a1)
                a2, a3 = fma(k, load(V, o + 2 * LANES), a2), fma(k, load(V, o + 3 * LANES), a3)
            _store4(Y, v0 + (j * BLOCKS + b) * LANES, a0, a1, a2, a3)


@compiled
def _lags(dK, k0, V, G, v0):
    """dK[l] += sum over blocks and tokens of G[j, b] V[j - l, b]."""
    for lag in range(SIZE):
        even, odd = load(dK, k0 + lag * LANES), splat(ZERO)
        for j in range(lag, SIZE):
            o, p = v0 + j * BLOCKS * LANES, v0 + (j - lag) * BLOCKS * LANES
            for b in range(0, BLOCKS, 2):
                even = fma(load(G, o + b * LANES), load(V, p + b * LANES), even)
                odd = fma(load(G, o + (b + 1) * LANES), load(V, p + (b + 1) * LANES), odd)
        store(dK, k0 + lag * LANES, even + odd)


@compiled
def _carry(A, a0, S, x, x0, clear, c0, n_state):
    """Inflows to entry states, in place; ``x`` moves over the tile. Two states at a time, for they are chains."""
    for n in range(0, n_state, 2):
        a, h = a0 + 2 * n * LANES, x0 + 2 * n * LANES
        pr, pi, qr, qi = load(A, a), load(A, a + LANES), load(A, a + 2 * LANES), load(A, a + 3 * LANES)
        xr, xi, yr, yi = load(x, h), load(x, h + LANES), load(x, h + 2 * LANES), load(x, h + 3 * LANES)
        for b in range(BLOCKS):
            o = (2 * n * BLOCKS + b) * LANES
            if clear[c0 + b] != 0:
                xr, xi, yr, yi = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
            zr, zi = load(S, o), load(S, o + BLOCKS * LANES)
            vr, vi = load(S, o + 2 * BLOCKS * LANES), load(S, o + 3 * BLOCKS * LANES)
            store(S, o, xr)
            store(S, o + BLOCKS * LANES, xi)
            store(S, o + 2 * BLOCKS * LANES, yr)
            store(S, o + 3 * BLOCKS * LANES, yi)
            r, i = fma(pr, xr, zr - pi * xi), fma(pr, xi, fma(pi, xr, zi))
            xr, xi = xr + r, xi + i
            r, i = fma(qr, yr, vr - qi * yi), fma(qr, yi, fma(qi, yr, vi))
            yr, yi = yr + r, yi + i
        _store4(x, h, xr, xi, yr, yi)


@compiled
def _carry_back(A, a0, X, G, g, g0, dA, last, end, whole, clear, c0, n_state):
    """What blocks send back, in place, to the adjoint behind each block; ``g`` moves back over the tile.

    ``end`` is a gradient of the state behind block ``last`` if ``whole``, else of the one in front of it.
    """
    for n in range(n_state):
        a, o, h = a0 + 2 * n * LANES, 2 * n * BLOCKS * LANES, g0 + 2 * n * LANES
        ar, ai = load(A, a), load(A, a + LANES)
        er, ei = load(end, 2 * n * LANES), load(end, (2 * n + 1) * LANES)
        gr, gi = load(g, h), load(g, h + LANES)
        dr, di = load(dA, h), load(dA, h + LANES)
        for back in range(BLOCKS):
            b = BLOCKS - 1 - back
            r, i = o + b * LANES, o + (BLOCKS + b) * LANES
            if b == last and whole:
                gr, gi = gr + er, gi + ei
            xr, xi, vr, vi = load(X, r), load(X, i), load(G, r), load(G, i)
            store(G, r, gr)
            store(G, i, gi)
            dr, di = fma(gr, xr, fma(gi, xi, dr)), fma(gi, xr, di - gr * xi)
            vr, vi = fma(ar, gr, fma(ai, gi, vr)), fma(ar, gi, vi - ai * gr)
            gr, gi = gr + vr, gi + vi
            if b == last and not whole:
                gr, gi = gr + er, gi + ei
            if clear[c0 + b] != 0:
                gr, gi = splat(ZERO), splat(ZERO)
        store(g, h, gr)
        store(g, h + LANES, gi)
        store(dA, h, dr)
        store(dA, h + LANES, di)


@compiled
def _behind(A, a0, T, t0, V, v0, S, block, tokens, last, l0, n_state):
    """The state behind the first ``tokens`` tokens of a block: what is missing would stand in front of them."""
    for n in range(n_state):
        xr, xi = load(S, (2 * n * BLOCKS + block) * LANES), load(S, ((2 * n + 1) * BLOCKS + block) * LANES)
        re, im = t0 + 2 * n * SIZE * LANES, t0 + (2 * n + 1) * SIZE * LANES
        if tokens == SIZE:
            a = a0 + 2 * n * LANES
            pr, pi = load(A, a), load(A, a + LANES)
            yr, yi = fma(pr, xr, xr - pi * xi), fma(pr, xi, fma(pi, xr, xi))
        else:
            at = (SIZE - 1 - tokens) * LANES
            pr, pi = load(T, re + at), load(T, im + at)
            yr, yi = pr * xr - pi * xi, fma(pr, xi, pi * xr)
        for j in range(tokens):
            x, at = load(V, v0 + (j * BLOCKS + block) * LANES), (j + SIZE - tokens) * LANES
            yr, yi = fma(load(T, re + at), x, yr), fma(load(T, im + at), x, yi)
        store(last, l0 + 2 * n * LANES, yr)
        store(last, l0 + (2 * n + 1) * LANES, yi)


@compiled
def _behind_back(T, t0, V, v0, X, block, tokens, end, Y, dT, d0, n_state):
    """Backward of ``_behind`` for a block that is not full: ``end`` becomes the gradient of its entry state."""
    for n in range(n_state):
        xr, xi = load(X, (2 * n * BLOCKS + block) * LANES), load(X, ((2 * n + 1) * BLOCKS + block) * LANES)
        gr, gi = load(end, 2 * n * LANES), load(end, (2 * n + 1) * LANES)
        re, im, back = 2 * n * SIZE * LANES, (2 * n + 1) * SIZE * LANES, d0 - t0
        for j in range(tokens):
            o, at = v0 + (j * BLOCKS + block) * LANES, t0 + (j + SIZE - tokens) * LANES
            x = load(V, o)
            store(Y, o, fma(load(T, re + at), gr, fma(load(T, im + at), gi, load(Y, o))))
            store(dT, back + re + at, fma(x, gr, load(dT, back + re + at)))
            store(dT, back + im + at, fma(x, gi, load(dT, back + im + at)))
        at = t0 + (SIZE - 1 - tokens) * LANES
        pr, pi = load(T, re + at), load(T, im + at)
        store(dT, back + re + at, fma(gr, xr, fma(gi, xi, load(dT, back + re + at))))
        store(dT, back + im + at, fma(gi, xr, load(dT, back + im + at) - gr * xi))
        store(end, 2 * n * LANES, fma(pr, gr, pi * gi))
        store(end, (2 * n + 1) * LANES, pr * gi - pi * gr)


@compiled
def forward_task(
    u, inflow, outflow, K, A, positions, clear, state, last, borders, y,
    u0, us, y0, ys, p0, c0, blocks, tokens, group0, groups, n_state, save, border0, border_stride, state0,
):  # fmt: skip
    """One task of the forward pass; ``state`` is used up."""
    V, Y = scratch(groups * TILE * LANES), scratch(groups * TILE * LANES)
    S = scratch(2 * STATES * BLOCKS * LANES)
    width = 2 * n_state * LANES
    for tile in range((blocks + BLOCKS - 1) // BLOCKS):
        at = border0 + tile * border_stride
        if save:
            borders[at : at + groups * width] = state[state0 : state0 + groups * width]
        end = blocks - 1 - tile * BLOCKS
        _gather(u, u0, us, positions, p0 + tile * TILE, groups, V)
        for g in range(groups):
            v0 = g * TILE * LANES
            _ask(u, u0, us, positions, p0 + (tile + 1) * TILE, groups, g)
            _among_tokens(K, (group0 + g) * SIZE * LANES, V, Y, v0, False)
            for n in range(0, n_state, STATES):
                count = min(STATES, n_state - n)
                a0, s0 = (group0 + g) * width + 2 * n * LANES, state0 + g * width + 2 * n * LANES
                _into_states(inflow, a0 * SIZE, V, v0, S, count)
                _carry(A, a0, S, state, s0, clear, c0 + tile * BLOCKS, count)
                if end < BLOCKS:
                    _behind(A, a0, inflow, a0 * SIZE, V, v0, S, end, tokens, last, s0, count)
                _from_states(outflow, a0 * SIZE, S, Y, v0, count)
        _scatter(Y, positions, p0 + tile * TILE, groups, y, y0, ys)


@compiled
def backward_task(
    u, dy, inflow, outflow, K, A, positions, clear, borders, dlast, g, du, dinflow, doutflow, dK, dA,
    u0, us, dy0, dys, du0, dus, p0, c0, blocks, tokens, group0, groups, n_state, border0, border_stride, state0, dk0,
):  # fmt: skip
    """One task of the backward pass: du, and what it adds to the tables' gradients; ``g`` ends as the state's."""
    size = groups * TILE * LANES
    V, D, Y = scratch(size), scratch(size), scratch(size)
    width = 2 * n_state * LANES
    part = 2 * STATES * LANES
    X, G, x, end = scratch(part * BLOCKS), scratch(part * BLOCKS), scratch(part), scratch(part)
    for tile in range((blocks + BLOCKS - 1) // BLOCKS - 1, -1, -1):
        p, c = p0 + tile * TILE, c0 + tile * BLOCKS
        block = blocks - 1 - tile * BLOCKS
        block = block if block < BLOCKS else -1
        _gather(u, u0, us, positions, p, groups, V)
        _gather(dy, dy0, dys, positions, p, groups, D)
        for k in range(groups):
            v0 = k * TILE * LANES
            if tile > 0:
                _ask(u, u0, us, positions, p - TILE, groups, k)
                _ask(dy, dy0, dys, positions, p - TILE, groups, k)
            _ask(du, du0, dus, positions, p, groups, k)
            _among_tokens(K, (group0 + k) * SIZE * LANES, D, Y, v0, True)
            _lags(dK, dk0 + k * SIZE * LANES, V, D, v0)
            for n in range(0, n_state, STATES):
                count = min(STATES, n_state - n)
                own = k * width + 2 * n * LANES
                a0, s0, at = group0 * width + own, state0 + own, border0 + tile * border_stride + own
                x[: 2 * count * LANES] = borders[at : at + 2 * count * LANES]
                end[: 2 * count * LANES] = dlast[s0 : s0 + 2 * count * LANES]
                _into_states(inflow, a0 * SIZE, V, v0, X, count)
                _carry(A, a0, X, x, 0, clear, c, count)
                _into_states(outflow, a0 * SIZE, D, v0, G, count)
                if block >= 0 and tokens < SIZE:
                    _behind_back(inflow, a0 * SIZE, V, v0, X, block, tokens, end, Y, dinflow, s0 * SIZE, count)
                _carry_back(A, a0, X, G, g, s0, dA, block, end, tokens == SIZE, clear, c, count)
                _from_states(inflow, a0 * SIZE, G, Y, v0, count)
                _outer(dinflow, s0 * SIZE, V, v0, G, count)
                _outer(doutflow, s0 * SIZE, D, v0, X, count)
        _scatter(Y, positions, p, groups, du, du0, dus)
