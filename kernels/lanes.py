"""Affine recurrences h_t = a_t h_{t-1} + x_t by lanes: many tokens advance together, no loop over single positions.

A block of tokens stands as lanes of LANE tokens. All lanes take their j-th step at once, each from zero; then the
lanes' ends are carried along, and every token gets its share of what its lane started from. Nothing is ever divided
by a decay, so nothing overflows.
"""

from __future__ import annotations

import torch
from torch import Tensor

LANE = 32


def affine_scan(a: Tensor, x: Tensor, h: Tensor) -> Tensor:
    """All h_t; a, x (batch, lanes * LANE, ...), h (batch, ...), real or complex."""
    a, x = (v.unflatten(1, (-1, LANE)) for v in (a, x))
    local, decay = [x[:, :, 0]], [a[:, :, 0]]
    for j in range(1, LANE):
        local.append(a[:, :, j] * local[-1] + x[:, :, j])
        decay.append(decay[-1] * a[:, :, j])
    carried = [h]
    for lane in range(a.shape[1] - 1):
        carried.append(decay[-1][:, lane] * carried[-1] + local[-1][:, lane])
    entry = torch.stack(carried, dim=1)[:, :, None]
    return (torch.stack(local, dim=2) + torch.stack(decay, dim=2) * entry).flatten(1, 2)
