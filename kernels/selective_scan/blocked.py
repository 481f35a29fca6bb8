"""The selective scan in plain PyTorch, any device and dtype: linear in length, no loop over single positions.

The sequence is cut into blocks; only the state at block borders is kept, and backward recomputes a block from
it. Inside a block the tokens stand as lanes: all lanes advance together, then the lanes' ends are carried along.
Nothing is ever divided by a decay, so nothing overflows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genossm.kernels.segments import starts

BLOCK = 1024
LANE = 32


def _affine_scan(a: Tensor, x: Tensor, h: Tensor) -> Tensor:
    """All h_t = a_t h_{t-1} + x_t of a block; a, x (batch, lanes * LANE, dim, dstate), h (batch, dim, dstate)."""
    batch, length, dim, dstate = a.shape
    a = a.view(batch, -1, LANE, dim, dstate)
    x = x.view(batch, -1, LANE, dim, dstate)
    local, decay = [x[:, :, 0]], [a[:, :, 0]]
    for j in range(1, LANE):
        local.append(a[:, :, j] * local[-1] + x[:, :, j])
        decay.append(decay[-1] * a[:, :, j])
    carried = [h]
    for lane in range(a.shape[1] - 1):
        carried.append(decay[-1][:, lane] * carried[-1] + local[-1][:, lane])
    entry = torch.stack(carried, dim=1)[:, :, None]
    return (torch.stack(local, dim=2) + torch.stack(decay, dim=2) * entry).view(batch, length, dim, dstate)


def _block(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, resets: Tensor | None, h: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs (batch, length, dim) of one block and the state after it."""
    length = u.shape[1]
    pad = -length % LANE  # delta = 0 leaves the state as it is
    u, delta, B, C = (F.pad(v, (0, 0, 0, pad)) for v in (u, delta, B, C))
    a = torch.exp(delta[..., None] * A)
    if resets is not None:
        a = a * ~F.pad(resets, (0, pad))[..., None, None]
    states = _affine_scan(a, (delta * u)[..., None] * B[:, :, None, :], h)
    return torch.einsum("bldn,bln->bld", states, C)[:, :length], states[:, -1]


def selective_scan_blocked(
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
    """Blocks with recomputation; arguments and results as :func:`~genossm.kernels.selective_scan.selective_scan`."""
    delta = dt if dt_bias is None else dt + dt_bias
    if dt_softplus:
        delta = F.softplus(delta)
    if mask is not None:
        delta = delta * mask[..., None]
    resets = starts(segments, mask, reverse=reverse)
    parts: list[Tensor | None] = [u, delta, B, C, resets]
    if reverse:
        parts = [None if v is None else v.flip(1) for v in parts]
    h = u.new_zeros(u.shape[0], u.shape[2], A.shape[1]) if initial_state is None else initial_state
    ys = []
    for begin in range(0, u.shape[1], BLOCK):
        pu, pd, pB, pC, pr = (None if v is None else v[:, begin : begin + BLOCK] for v in parts)
        y, h = checkpoint(_block, pu, pd, A, pB, pC, pr, h, use_reentrant=False, preserve_rng_state=False)
        ys.append(y)
    y = torch.cat(ys, dim=1) if ys else torch.zeros_like(u)
    y = y.flip(1) if reverse else y
    if D is not None:
        y = y + D * u
    if z is not None:
        y = y * F.silu(z)
    return y, h
