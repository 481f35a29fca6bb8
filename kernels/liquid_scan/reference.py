"""Liquid-S4, token by token: a diagonal state space whose decay depends on the input, as it was defined.

    h_t = (A_bar + B_bar u_t) h_{t-1} + B_bar u_t,   y_t = 2 Re C . h_t      (arXiv:2209.12951, equation 3 discretised)

This is the recurrence itself; the official kernel trick expands it in powers of the input and cuts the series off. A
masked token leaves the state untouched, and the state is cleared where a segment starts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genossm.kernels.segments import starts


def liquid_scan_ref(
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
    """Arguments and results as :func:`genossm.kernels.liquid_scan.liquid_scan`."""
    batch, seqlen, dim = u.shape
    resets = starts(segments, mask, reverse=reverse)
    h = A_bar.new_zeros(batch, dim, A_bar.shape[1]) if initial_state is None else initial_state
    ys: list[Tensor] = [u] * seqlen
    for t in reversed(range(seqlen)) if reverse else range(seqlen):
        if resets is not None:
            h = h * ~resets[:, t, None, None]
        push = B_bar * u[:, t, :, None]
        new = (A_bar + push) * h + push
        h = new if mask is None else torch.where(mask[:, t, None, None], new, h)
        ys[t] = 2 * (h * C).sum(-1).real
    return torch.stack(ys, dim=1), h
