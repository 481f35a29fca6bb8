"""State space duality (Mamba-2), token by token: the definition.

For each head h of width headdim, with B and C shared by the heads of a group (Mamba-2, arXiv:2405.21060, section 7):

    delta_t = clamp(softplus(dt_t + dt_bias), dt_limit)
    S_t     = exp(delta_t A_h) S_{t-1} + (delta_t x_t) B_t^T          S: (headdim, dstate), 0 where a segment starts
    y_t     = S_t C_t + D_h x_t,  times silu(z_t) if z is given

A masked token has delta_t = 0: the state passes it untouched. With A = 0 and delta = 1 this is linear attention
(arXiv:2006.16236) without its normaliser: C are the queries, B the keys, x the values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels.segments import starts


def time_step(
    dt: Tensor,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    dt_limit: tuple[float, float] | None,
    mask: Tensor | None,
) -> Tensor:
    """delta (batch, seqlen, heads): bias, softplus, clamp, and zero at padding."""
    delta = dt if dt_bias is None else dt + dt_bias
    if dt_softplus:
        delta = F.softplus(delta)
    if dt_limit is not None:
        delta = delta.clamp(*dt_limit)
    return delta if mask is None else delta * mask[..., None]


def skip_and_gate(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """y + D x, times silu(z)."""
    if D is not None:
        y = y + (D if D.dim() == 2 else D[:, None]) * x
    return y if z is None else y * F.silu(z)


def ssd_ref(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = True,
    dt_limit: tuple[float, float] | None = None,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.ssd.ssd`."""
    batch, seqlen, heads, headdim = x.shape
    delta = time_step(dt, dt_bias, dt_softplus, dt_limit, mask)
    resets = starts(segments, mask, reverse=reverse)
    B, C = (v.repeat_interleave(heads // v.shape[2], dim=2) for v in (B, C))
    state = x.new_zeros(batch, heads, headdim, B.shape[-1]) if initial_state is None else initial_state
    ys: list[Tensor] = [x] * seqlen
    for t in reversed(range(seqlen)) if reverse else range(seqlen):
        if resets is not None:
            state = state * ~resets[:, t, None, None, None]
        inflow = (delta[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None, :]
        state = torch.exp(delta[:, t] * A)[..., None, None] * state + inflow
        ys[t] = (state * C[:, t, :, None, :]).sum(-1)
    y = torch.stack(ys, dim=1) if ys else torch.zeros_like(x)
    return skip_and_gate(y, x, D, z), state
