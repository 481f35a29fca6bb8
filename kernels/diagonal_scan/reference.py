"""A diagonal linear recurrence with constant decays whose states are all wanted, token by token: the definition.

    h_t = exp(log_a) h_{t-1} + x_t                                       (the scan of S5, arXiv:2208.04933)

A masked token leaves the state untouched, and the state is cleared where a segment starts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genossm.kernels.segments import starts


def diagonal_scan_ref(
    x: Tensor,
    log_a: Tensor,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.diagonal_scan.diagonal_scan`."""
    batch, seqlen, dim = x.shape
    resets = starts(segments, mask, reverse=reverse)
    a = torch.exp(log_a)
    h = x.new_zeros(batch, dim) if initial_state is None else initial_state
    hs: list[Tensor] = [h] * seqlen
    for t in reversed(range(seqlen)) if reverse else range(seqlen):
        if resets is not None:
            h = h * ~resets[:, t, None]
        new = a * h + x[:, t]
        h = new if mask is None else torch.where(mask[:, t, None], new, h)
        hs[t] = h
    return torch.stack(hs, dim=1), h
