"""A diagonal linear time-invariant state space, token by token: the definition.

    x_t = exp(lam) x_{t-1} + u_t,   y_t = 2 Re sum_n C_n x_{t,n}         (S4D, arXiv:2206.11893, section 3)

``lam`` is lambda * dt, and C carries the discretised B: both are constant along the sequence. A masked token
leaves the state untouched, and the state is cleared where a segment starts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genossm.kernels.segments import starts


def lti_ref(
    u: Tensor,
    lam: Tensor,
    C: Tensor,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.lti.lti`."""
    batch, seqlen, dim = u.shape
    resets = starts(segments, mask, reverse=reverse)
    decay = torch.exp(lam)
    x = lam.new_zeros(batch, dim, lam.shape[1]) if initial_state is None else initial_state
    ys: list[Tensor] = [u] * seqlen
    for t in reversed(range(seqlen)) if reverse else range(seqlen):
        if resets is not None:
            x = x * ~resets[:, t, None, None]
        new = decay * x + u[:, t, :, None]
        x = new if mask is None else torch.where(mask[:, t, None, None], new, x)
        ys[t] = 2 * (x * C).sum(-1).real
    return torch.stack(ys, dim=1), x
