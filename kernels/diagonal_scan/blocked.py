"""The diagonal recurrence in blocks, plain PyTorch, any device and dtype: linear in length.

Inside a block of R tokens it is a triangular matrix product a channel, each power from its exponent; between blocks
only the state travels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels.rows import unpack

R = 32


def diagonal_scan_blocked(
    x: Tensor,
    log_a: Tensor,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.diagonal_scan.diagonal_scan`."""
    if reverse:
        x = x.flip(1)
        mask = None if mask is None else mask.flip(1)
        segments = None if segments is None else segments.flip(1)
    batch, seqlen, dim = x.shape
    state = x.new_zeros(batch, dim) if initial_state is None else initial_state
    if mask is None and segments is None:
        h = _rows(x, log_a, state)
        last = h[:, -1].clone()  # a view would keep every state alive
    else:
        rows = unpack(batch, seqlen, mask, segments, x.device)
        entry = rows.enter(state)
        of_rows = _rows(rows.gather(x), log_a, entry)
        at = (rows.lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, dim)
        ends = torch.where(rows.lengths[:, None] > 0, of_rows.gather(1, at)[:, 0], entry)
        h, last = rows.scatter(of_rows, batch, seqlen), ends[rows.last]
    return (h.flip(1) if reverse else h), last


def _rows(x: Tensor, log_a: Tensor, state: Tensor) -> Tensor:
    """All states (rows, length, dim) of plain rows."""
    count, length, dim = x.shape
    blocks = -(-length // R)
    k = torch.arange(R, device=x.device)
    lag = (k[:, None] - k[None, :]).to(log_a.real.dtype)
    powers = torch.where(lag >= 0, torch.exp(log_a[:, None, None] * lag.clamp(min=0)), 0)
    columns = F.pad(x, (0, 0, 0, blocks * R - length)).view(count * blocks, R, dim).permute(2, 1, 0)
    local = torch.bmm(powers, columns).unflatten(-1, (count, blocks))  # (dim, R, rows, blocks)
    over = torch.exp(log_a * R)[:, None]
    entry, entries = state.mT, []
    for end in local[:, -1].unbind(-1):
        entries.append(entry)
        entry = over * entry + end
    reach = torch.exp(log_a[:, None] * (k + 1).to(log_a.real.dtype))
    h = local + reach[:, :, None, None] * torch.stack(entries, dim=-1)[:, None]
    return h.permute(2, 3, 1, 0).reshape(count, blocks * R, dim)[:, :length]
