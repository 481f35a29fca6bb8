"""RWKV-4's weighted average, token by token: the definition (arXiv:2305.13048, equations 14 to 19).

    wkv_t = (sum_{i<t} e^{(t-1-i) w + k_i} v_i + e^{u + k_t} v_t) / (the same without v),     w = -exp(time_decay)

Numerator and denominator are kept relative to the largest exponent so far, so no key overflows. A masked token leaves
the state untouched, and the state is emptied where a segment starts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genossm.kernels.segments import starts

Triple = tuple[Tensor, Tensor, Tensor]
"""Numerator and denominator over e^max, and max; (..., dim) each."""

EMPTY = -1e38
"""The largest exponent of nothing."""


def empty(like: Tensor) -> Triple:
    """The state before any token, in the shape of ``like``."""
    return torch.zeros_like(like), torch.zeros_like(like), torch.full_like(like, EMPTY)


def merge(a: Triple, b: Triple) -> Triple:
    """The sum of two states."""
    top = torch.maximum(a[2], b[2])
    left, right = torch.exp(a[2] - top), torch.exp(b[2] - top)
    return left * a[0] + right * b[0], left * a[1] + right * b[1], top


def choose(where: Tensor, a: Triple, b: Triple) -> Triple:
    """``a`` where it is True, else ``b``."""
    return torch.where(where, a[0], b[0]), torch.where(where, a[1], b[1]), torch.where(where, a[2], b[2])


def wkv_ref(
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    *,
    initial_state: Triple | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Triple]:
    """Arguments and results as :func:`genossm.kernels.wkv.wkv`."""
    seqlen = k.shape[1]
    resets = starts(segments, mask, reverse=reverse)
    state = empty(k[:, 0]) if initial_state is None else initial_state
    ys: list[Tensor] = [k] * seqlen
    for t in reversed(range(seqlen)) if reverse else range(seqlen):
        if resets is not None:
            state = choose(resets[:, t, None], empty(k[:, 0]), state)
        one = torch.ones_like(k[:, t])
        num, den, _ = merge(state, (v[:, t], one, k[:, t] + u))
        ys[t] = num / den
        after = merge((state[0], state[1], state[2] + w), (v[:, t], one, k[:, t]))
        state = after if mask is None else choose(mask[:, t, None], after, state)
    return torch.stack(ys, dim=1), state
