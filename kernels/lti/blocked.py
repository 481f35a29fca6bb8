"""The diagonal state space in blocks, plain PyTorch, any device and dtype: linear in length.

Inside a block of R tokens the system is a small Toeplitz matrix product; between blocks only the state travels.
Every power of the decay is computed from its exponent, never by repeated products, so float32 keeps its digits.
Three products of about R multiply-adds a token and channel, and one short step a block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels.rows import unpack

R = 64


def lti_blocked(
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
    if reverse:
        u = u.flip(1)
        mask = None if mask is None else mask.flip(1)
        segments = None if segments is None else segments.flip(1)
    batch, seqlen, dim = u.shape
    state = lam.new_zeros(batch, dim, lam.shape[1]) if initial_state is None else initial_state
    if mask is None and segments is None:
        y, state = _rows(u, lam, C, state, None)
    else:
        rows = unpack(batch, seqlen, mask, segments, u.device)
        y, ends = _rows(rows.gather(u), lam, C, rows.enter(state), rows.lengths)
        y, state = rows.scatter(y, batch, seqlen), ends[rows.last]
    return (y.flip(1) if reverse else y), state


def _powers(lam: Tensor, exponents: Tensor) -> Tensor:
    """exp(lam * k), (dim, dstate, len(exponents))."""
    return torch.exp(lam[..., None] * exponents.to(lam.real.dtype))


def _rows(u: Tensor, lam: Tensor, C: Tensor, state: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Plain rows, left-aligned; the state is that after each row's own last token."""
    count, length, dim = u.shape
    blocks = -(-length // R) if lengths is None else length // R + 1  # room for a state exactly at a row's end
    k = torch.arange(R, device=u.device)
    # (dim, R, rows * blocks): one small matrix product a channel
    x = F.pad(u, (0, 0, 0, blocks * R - length)).view(count * blocks, R, dim).permute(2, 1, 0)
    steps = _powers(lam, k)
    kernel = 2 * torch.einsum("dn,dnk->dk", C, steps).real
    lag = k[:, None] - k[None, :]
    toeplitz = torch.where(lag >= 0, kernel[:, lag.clamp(min=0)], kernel.new_zeros(()))
    inflow = _complex_times_real(steps.flip(-1), x).view(dim, -1, count, blocks)
    entries = _carry(inflow, torch.exp(lam * R), state)
    outflow = C[..., None] * _powers(lam, k + 1)
    y = torch.bmm(toeplitz, x) + 2 * _real_of_product(outflow, entries[..., :blocks].flatten(2))
    y = y.permute(2, 1, 0).reshape(count, blocks * R, dim)[:, :length]
    if lengths is None and length == blocks * R:
        return y, entries[..., blocks].permute(2, 0, 1)
    ends = torch.full((count,), length, device=u.device) if lengths is None else lengths
    return y, _state_at(x.view(dim, R, count, blocks), entries, lam, ends)


def _complex_times_real(a: Tensor, x: Tensor) -> Tensor:
    """bmm of complex a (dim, n, R) and real x (dim, R, m), as two real products."""
    return torch.complex(torch.bmm(a.real, x), torch.bmm(a.imag, x))


def _real_of_product(a: Tensor, s: Tensor) -> Tensor:
    """Re sum_n a_n s_n for a (dim, n, R), s (dim, n, m): (dim, R, m), as two real products."""
    return torch.bmm(a.real.mT, s.real) - torch.bmm(a.imag.mT, s.imag)


def _carry(inflow: Tensor, decay: Tensor, state: Tensor) -> Tensor:
    """States at the start of every block and after the last: (dim, n, rows, blocks + 1)."""
    x = state.permute(1, 2, 0)
    entries = [x]
    for block in inflow.unbind(-1):
        x = decay[..., None] * x + block
        entries.append(x)
    return torch.stack(entries, dim=-1)


def _state_at(x: Tensor, entries: Tensor, lam: Tensor, ends: Tensor) -> Tensor:
    """The state after ``ends`` tokens of each row, (rows, dim, n); x is (dim, R, rows, blocks)."""
    rows = torch.arange(ends.numel(), device=ends.device)
    block, inside = ends // R, ends % R
    tail = x[:, :, rows, block.clamp(max=x.shape[3] - 1)]
    k = torch.arange(R, device=ends.device)
    exponent = inside[None, :] - 1 - k[:, None]
    weights = torch.where(exponent >= 0, torch.exp(lam[..., None, None] * exponent.clamp(min=0).to(lam.real.dtype)), 0)
    decayed = torch.exp(lam[..., None] * inside.to(lam.real.dtype)) * entries[:, :, rows, block]
    return (decayed + torch.einsum("dnkr,dkr->dnr", weights, tail.to(weights.dtype))).permute(2, 0, 1)
