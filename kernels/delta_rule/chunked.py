"""The generalised delta rule by chunks, plain PyTorch, any device and dtype: matrix products, linear in length.

Within a chunk let c be the cumulative log decay and m_t = kappa_t^T S_{t-1} what is found under kappa. Unrolled,

    m_t = (kappa_t e^{c_{t-1}})^T S_0 + sum_{s<t} [kappa_t e^{c_{t-1} - c_s} . k_s] v_s - [.. . kappa_s a_s] m_s

a unit triangular system for all m of the chunk at once; the state and the outputs follow by products. The solves of
all chunks run together, only the state goes from chunk to chunk. Exponents are taken from the middle of the chunk, so
log decays down to -5 a token are safe in float32; RWKV-7 has -0.61 at most.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genossm.kernels.segments import starts

CHUNK = 32
BLOCK = 64 * CHUNK


def delta_rule_chunked(
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
    removed = kappa * a
    if mask is not None:  # nothing decays, nothing is taken out, nothing is put in
        w, k, removed = (part * mask[..., None, None] for part in (w, k, removed))
    begins = starts(segments, mask, reverse=reverse)
    parts = [r, w, k, v, kappa, removed]
    if reverse:
        parts = [part.flip(1) for part in parts]
        begins = None if begins is None else begins.flip(1)
    S = k.new_zeros(batch, heads, keys, v.shape[-1]) if initial_state is None else initial_state
    ys = []
    for at in range(0, seqlen, BLOCK):
        pieces = [part[:, at : at + BLOCK] for part in parts]
        resets = None if begins is None else begins[:, at : at + BLOCK]
        y, S = checkpoint(_block, *pieces, resets, S, use_reentrant=False, preserve_rng_state=False)
        ys.append(y)
    y = torch.cat(ys, dim=1)
    return (y.flip(1) if reverse else y), S


def _block(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, kappa: Tensor, removed: Tensor, resets: Tensor | None, S: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs (batch, length, heads, values) of one block and the state after it."""
    length = k.shape[1]
    size = min(CHUNK, length)
    pad = -length % size

    def chunks(part: Tensor) -> Tensor:  # (batch, length, heads, n) to (batch, chunks, heads, size, n)
        return F.pad(part, (0, 0, 0, 0, 0, pad)).unflatten(1, (-1, size)).transpose(2, 3)

    r, w, k, v, kappa, removed = (chunks(part) for part in (r, w, k, v, kappa, removed))
    c = w.cumsum(-2)
    middle = c[..., size // 2, None, :]
    before = c - w  # up to and without each token
    grow = torch.exp(middle - c)
    k_up, removed_up = k * grow, removed * grow
    asks, reads = kappa * torch.exp(before - middle), r * torch.exp(c - middle)
    lower = torch.ones(size, size, dtype=torch.bool, device=k.device).tril()
    kept_asks, kept_reads = kappa * torch.exp(before), r * torch.exp(c)
    last = torch.exp(c[..., -1:, :] - c)
    k_last, removed_last, kept = k * last, removed * last, torch.exp(c[..., -1, :])
    if resets is not None:  # a number for each stretch of a chunk; what stands in another stretch is out of sight
        stretch = F.pad(resets.long(), (0, pad)).unflatten(1, (-1, size)).cumsum(-1)[:, :, None, :, None]
        lower = lower & (stretch == stretch.mT)
        first, final = stretch == 0, stretch == stretch[..., -1:, :]
        kept_asks, kept_reads = kept_asks * first, kept_reads * first
        k_last, removed_last, kept = k_last * final, removed_last * final, kept * first[..., -1, :]
    strict = lower & ~torch.eye(size, dtype=torch.bool, device=k.device)
    system = (asks @ removed_up.mT) * strict + torch.eye(size, dtype=k.dtype, device=k.device)
    from_values = ((asks @ k_up.mT) * strict) @ v
    right = torch.cat([kept_asks, from_values], dim=-1)
    from_state, from_values = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True).split(
        [k.shape[-1], v.shape[-1]], dim=-1
    )
    added = k_last.mT @ v
    entries, found = [], []
    for i in range(k.shape[1]):
        entries.append(S)
        m = from_state[:, i] @ S + from_values[:, i]
        found.append(m)
        S = kept[:, i][..., None] * S + added[:, i] - removed_last[:, i].mT @ m
    entry, m = torch.stack(entries, dim=1), torch.stack(found, dim=1)
    y = kept_reads @ entry + ((reads @ k_up.mT) * lower) @ v - ((reads @ removed_up.mT) * lower) @ m
    return y.transpose(2, 3).flatten(1, 2)[:, :length], S
