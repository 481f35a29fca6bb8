"""Liquid-S4 in plain PyTorch, any device and dtype: linear in length, no loop over single positions.

Only the state at block borders is kept, and backward recomputes a block from it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genossm.kernels.lanes import LANE, affine_scan
from genossm.kernels.segments import starts

BLOCK = 32 * LANE


def _block(
    u: Tensor, A_bar: Tensor, B_bar: Tensor, C: Tensor, kept: Tensor, resets: Tensor | None, h: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs (batch, length, dim) of one block and the state after it; ``kept`` is False at padding."""
    pad = -u.shape[1] % LANE
    push = B_bar * F.pad(u, (0, 0, 0, pad))[..., None]
    kept = F.pad(kept, (0, pad))[..., None, None]
    a = torch.where(kept, A_bar + push, 1)
    if resets is not None:
        a = a * ~F.pad(resets, (0, pad))[..., None, None]
    states = affine_scan(a, push * kept, h)
    y = 2 * torch.einsum("bldn,dn->bld", states, C).real[:, : u.shape[1]]
    return y, states[:, -1].clone()  # a view would keep all states of the block alive


def liquid_scan_blocked(
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
    kept = torch.ones(batch, seqlen, dtype=torch.bool, device=u.device) if mask is None else mask
    parts: list[Tensor | None] = [u, kept, starts(segments, mask, reverse=reverse)]
    if reverse:
        parts = [None if v is None else v.flip(1) for v in parts]
    h = A_bar.new_zeros(batch, dim, A_bar.shape[1]) if initial_state is None else initial_state
    ys = []
    for begin in range(0, seqlen, BLOCK):
        pu, pk, pr = (None if v is None else v[:, begin : begin + BLOCK] for v in parts)
        y, h = checkpoint(_block, pu, A_bar, B_bar, C, pk, pr, h, use_reentrant=False, preserve_rng_state=False)
        ys.append(y)
    y = torch.cat(ys, dim=1)
    return (y.flip(1) if reverse else y), h
