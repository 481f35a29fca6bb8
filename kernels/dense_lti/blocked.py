"""The dense state space in blocks, plain PyTorch, any device and dtype: linear in length.

Inside a block of R tokens the system is a small Toeplitz matrix product, and so are what a block adds to the state
and what it reads of it; between blocks only the state travels, by A_bar^R. Powers of A_bar are formed in double
precision, by doubling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels.rows import unpack

R = 64


@dataclass(frozen=True)
class Block:
    """The matrices of a block of ``size`` tokens, a power of two.

    Attributes:
        toeplitz: (dim, size, size), inputs to outputs. inflow: (dim, n, size), inputs to state.
        outflow: (dim, size, n), state to outputs. powers: A_bar^(2^j) (dim, n, n) for 2^j = 1 .. size.
    """

    size: int
    toeplitz: Tensor
    inflow: Tensor
    outflow: Tensor
    powers: list[Tensor]


def dense_lti_blocked(
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
    if reverse:
        u = u.flip(1)
        mask = None if mask is None else mask.flip(1)
        segments = None if segments is None else segments.flip(1)
    batch, seqlen, dim = u.shape
    state = u.new_zeros(batch, dim, B_bar.shape[1]) if initial_state is None else initial_state
    rows = None if mask is None and segments is None else unpack(batch, seqlen, mask, segments, u.device)
    length = seqlen if rows is None else rows.shape[1]
    block = _block(A_bar, B_bar, C, min(R, 1 << (length - 1).bit_length()), u.dtype)
    if rows is None:
        y, state = _rows(u, block, state, torch.full((batch,), seqlen, device=u.device))
    else:
        y, ends = _rows(rows.gather(u), block, rows.enter(state), rows.lengths)
        y, state = rows.scatter(y, batch, seqlen), ends[rows.last]
    return (y.flip(1) if reverse else y), state


def _block(A_bar: Tensor, B_bar: Tensor, C: Tensor, size: int, dtype: torch.dtype) -> Block:
    power, columns = A_bar.double(), B_bar.double()[..., None]
    rows = C.double()[..., None, :] @ power  # C A_bar
    powers = [power]
    while columns.shape[-1] < size:
        columns = torch.cat([columns, power @ columns], dim=-1)
        rows = torch.cat([rows, rows @ power], dim=-2)
        power = power @ power
        powers.append(power)
    kernel = torch.einsum("dn,dnk->dk", C.double(), columns).to(dtype)
    k = torch.arange(size, device=kernel.device)
    lag = k[:, None] - k[None, :]
    toeplitz = torch.where(lag >= 0, kernel[:, lag.clamp(min=0)], kernel.new_zeros(()))
    return Block(size, toeplitz, columns.flip(-1).to(dtype), rows.to(dtype), [p.to(dtype) for p in powers])


def _rows(u: Tensor, block: Block, state: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Plain rows, left-aligned; the state (rows, dim, n) is that after each row's own last token."""
    count, length, dim = u.shape
    blocks = length // block.size + 1  # room for a state exactly at a row's end
    padded = F.pad(u, (0, 0, 0, blocks * block.size - length))
    x = padded.view(count * blocks, block.size, dim).permute(2, 1, 0)  # one small matrix product a channel
    inflow = torch.bmm(block.inflow, x).unflatten(-1, (count, blocks))
    entry, entries = state.permute(1, 2, 0), []
    for added in inflow.unbind(-1):
        entries.append(entry)
        entry = torch.bmm(block.powers[-1], entry) + added
    before = torch.stack(entries, dim=-1)  # (dim, n, rows, blocks)
    y = torch.bmm(block.toeplitz, x) + torch.bmm(block.outflow, before.flatten(2))
    y = y.permute(2, 1, 0).reshape(count, blocks * block.size, dim)[:, :length]
    return y, _state_at(x.unflatten(-1, (count, blocks)), before, block, ends).permute(2, 0, 1)


def _state_at(x: Tensor, before: Tensor, block: Block, ends: Tensor) -> Tensor:
    """The state after ``ends`` tokens of each row, (dim, n, rows): the remainder by its binary digits."""
    rows = torch.arange(ends.numel(), device=ends.device)
    whole, rest = ends // block.size, ends % block.size
    state, tail = before[:, :, rows, whole], x[:, :, rows, whole]
    at = torch.zeros_like(rest)
    for j in reversed(range(len(block.powers) - 1)):
        chosen = (rest >> j) & 1 == 1
        k = (at + torch.arange(1 << j, device=at.device)[:, None]).clamp(max=block.size - 1)
        piece = tail.gather(1, k.expand(tail.shape[0], -1, -1))
        moved = torch.bmm(block.powers[j], state) + torch.bmm(block.inflow[..., block.size - (1 << j) :], piece)
        state = torch.where(chosen, moved, state)
        at = at + (chosen.long() << j)
    return state
