"""The generalised delta rule of RWKV-7, token by token: the definition (arXiv:2503.14456, section 3).

    S_t = diag(e^{w_t}) S_{t-1} - (kappa_t * a_t) (kappa_t^T S_{t-1}) + k_t v_t^T          S: (keys, values)
    y_t = S_t^T r_t

What the state holds under the key kappa is partly taken out (a), the rest decays (w), a new value is put in under k.
A masked token leaves the state untouched, and the state is cleared where a segment starts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genossm.kernels.segments import starts


def delta_rule_ref(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: Tensor,
    a: Tensor,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.delta_rule.delta_rule`."""
    batch, seqlen, heads, keys = k.shape
    resets = starts(segments, mask, reverse=reverse)
    S = k.new_zeros(batch, heads, keys, v.shape[-1]) if initial_state is None else initial_state
    ys: list[Tensor] = [v] * seqlen
    for t in reversed(range(seqlen)) if reverse else range(seqlen):
        if resets is not None:
            S = S * ~resets[:, t, None, None, None]
        found = (kappa[:, t, :, :, None] * S).sum(-2, keepdim=True)
        new = torch.exp(w[:, t])[..., None] * S - (kappa[:, t] * a[:, t])[..., None] * found
        new = new + k[:, t][..., None] * v[:, t, :, None, :]
        S = new if mask is None else torch.where(mask[:, t, None, None, None], new, S)
        ys[t] = (S * r[:, t][..., None]).sum(-2)
    return torch.stack(ys, dim=1), S
