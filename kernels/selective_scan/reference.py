"""The selective scan, equation by equation: the definition that every fast path is held against.

For each channel d and state n (Mamba, arXiv:2312.00752, section 3.2, as in the official implementation):

    delta_t = softplus(dt_t + dt_bias)
    h_t     = exp(delta_t A) h_{t-1} + delta_t B_t u_t        h_{t-1} is 0 where a segment starts
    y_t     = C_t . h_t + D u_t,  times silu(z_t) if z is given

A masked token has delta_t = 0: the state passes it untouched.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels.segments import starts


def selective_scan_ref(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = True,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """One token at a time; arguments and results as :func:`genossm.kernels.selective_scan.selective_scan`."""
    batch, seqlen, dim = u.shape
    delta = dt if dt_bias is None else dt + dt_bias
    if dt_softplus:
        delta = F.softplus(delta)
    if mask is not None:
        delta = delta * mask[..., None]
    resets = starts(segments, mask, reverse=reverse)
    h = u.new_zeros(batch, dim, A.shape[1]) if initial_state is None else initial_state
    ys: list[Tensor] = [u] * seqlen
    for t in reversed(range(seqlen)) if reverse else range(seqlen):
        if resets is not None:
            h = h * ~resets[:, t, None, None]
        d = delta[:, t, :, None]
        h = torch.exp(d * A) * h + d * u[:, t, :, None] * B[:, t, None, :]
        ys[t] = (h * C[:, t, None, :]).sum(-1)
    y = torch.stack(ys, dim=1)
    if D is not None:
        y = y + D * u
    if z is not None:
        y = y * F.silu(z)
    return y, h
