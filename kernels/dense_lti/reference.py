"""A linear time-invariant state space with a full matrix for each channel, token by token: the definition.

    x_t = A_bar x_{t-1} + B_bar u_t,   y_t = C x_t           (LSSL, arXiv:2110.13985; S4, arXiv:2111.00396)

A masked token leaves the state untouched, and the state is cleared where a segment starts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genossm.kernels.segments import starts


def dense_lti_ref(
    u: Tensor,
    A_bar: Tensor,
    B_bar: Tensor,
    C: Tensor,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.dense_lti.dense_lti`."""
    batch, seqlen, dim = u.shape
    A_bar, B_bar, C = (v.to(u.dtype) for v in (A_bar, B_bar, C))
    resets = starts(segments, mask, reverse=reverse)
    x = u.new_zeros(batch, dim, B_bar.shape[1]) if initial_state is None else initial_state
    ys: list[Tensor] = [u] * seqlen
    for t in reversed(range(seqlen)) if reverse else range(seqlen):
        if resets is not None:
            x = x * ~resets[:, t, None, None]
        new = torch.einsum("dij,bdj->bdi", A_bar, x) + B_bar * u[:, t, :, None]
        x = new if mask is None else torch.where(mask[:, t, None, None], new, x)
        ys[t] = (x * C).sum(-1)
    return torch.stack(ys, dim=1), x
