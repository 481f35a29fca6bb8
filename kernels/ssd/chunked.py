"""State space duality by chunks, plain PyTorch, any device and dtype: matrix products, linear in length.

Inside a chunk the layer is a masked, decayed attention; between chunks only the state travels (Mamba-2,
arXiv:2405.21060, section 6). Decays come from differences of one cumulative sum, never from quotients of
exponentials, so nothing overflows. Only the states at the borders of a block of chunks are kept; backward recomputes
the rest, so memory for the decay matrices does not grow with the length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genossm.kernels.segments import starts
from genossm.kernels.ssd.reference import skip_and_gate, time_step

CHUNK = 64
BLOCK = 32 * CHUNK
"""Tokens between two states that are kept for backward."""


def ssd_chunked(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = True,
    dt_limit: tuple[float, float] | None = None,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.ssd.ssd`."""
    batch, seqlen, heads, headdim = x.shape
    groups, dstate = B.shape[2:]
    delta = time_step(dt, dt_bias, dt_softplus, dt_limit, mask)
    parts: list[Tensor | None] = [x, delta, B, C, starts(segments, mask, reverse=reverse)]
    if reverse:
        parts = [None if v is None else v.flip(1) for v in parts]
    if initial_state is None:
        state = x.new_zeros(batch, groups, dstate, heads // groups * headdim)
    else:  # (batch, groups, dstate, heads of a group * headdim): one product serves all heads of a group
        state = initial_state.reshape(batch, groups, -1, dstate).mT
    ys = []
    for begin in range(0, seqlen, BLOCK):
        px, pd, pB, pC, pr = (None if v is None else v[:, begin : begin + BLOCK] for v in parts)
        y, state = checkpoint(_block, px, pd, A, pB, pC, pr, state, use_reentrant=False, preserve_rng_state=False)
        ys.append(y)
    y = torch.cat(ys, dim=1) if ys else torch.zeros_like(x)
    y = skip_and_gate(y.flip(1) if reverse else y, x, D, z)
    return y, state.mT.reshape(batch, heads, headdim, dstate)


def _chunks(value: Tensor, pad: int) -> Tensor:
    """(batch, length, ...) to (batch, chunks, CHUNK, ...), zeros behind: delta = 0 leaves the state as it is."""
    padded = F.pad(value, (0, 0) * (value.dim() - 2) + (0, pad))
    return padded.view(value.shape[0], -1, CHUNK, *value.shape[2:])


def _block(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, resets: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs (batch, length, heads, headdim) of one block and the state after it."""
    batch, length, heads, headdim = x.shape
    groups = B.shape[2]
    pad = -length % CHUNK
    shape = (batch, -1, groups, heads // groups)
    inflow = _chunks(delta[..., None] * x, pad).permute(0, 1, 3, 2, 4)  # (batch, chunks, heads, CHUNK, headdim)
    inflow = inflow.reshape(batch, -1, groups, heads // groups, CHUNK, headdim)
    log_decay = _chunks(delta * A, pad).transpose(2, 3)
    total = log_decay.cumsum(-1).reshape(*shape, CHUNK)  # up to and with each token
    B, C = (_chunks(v, pad).transpose(2, 3) for v in (B, C))  # (batch, chunks, groups, CHUNK, dstate)

    since = total[..., -1:] - total
    visible = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=x.device).tril()
    from_entry, into_exit = torch.exp(total), torch.exp(since)
    if resets is not None:  # a number for each stretch of a chunk; what stands in another stretch is out of sight
        stretch = _chunks(resets.long()[..., None], pad)[..., 0].cumsum(-1)[:, :, None, None, :]
        visible = visible & (stretch[..., :, None] == stretch[..., None, :])
        from_entry = from_entry * (stretch == 0)
        into_exit = into_exit * (stretch == stretch[..., -1:])
    lag = total[..., :, None] - total[..., None, :]
    decay = torch.exp(lag.masked_fill(~visible, -torch.inf))

    own = ((C @ B.mT)[:, :, :, None] * decay) @ inflow  # (batch, chunks, groups, heads of a group, CHUNK, headdim)
    gathered = (into_exit[..., None] * inflow).permute(0, 1, 2, 4, 3, 5).flatten(4)
    entries, state = _carry(B.mT @ gathered, from_entry[..., -1], state, headdim)
    seen = (C @ entries).view(*C.shape[:-1], heads // groups, headdim).transpose(3, 4)
    y = own + from_entry[..., None] * seen
    y = y.permute(0, 1, 4, 2, 3, 5).reshape(batch, -1, heads, headdim)
    return y[:, :length], state


def _carry(inflow: Tensor, decay: Tensor, state: Tensor, headdim: int) -> tuple[Tensor, Tensor]:
    """The state in front of every chunk (batch, chunks, groups, dstate, columns), and the one after the last.

    Args:
        inflow: (batch, chunks, groups, dstate, columns), what each chunk adds.
        decay: (batch, chunks, groups, heads of a group), what each chunk leaves of what it found.
        state: (batch, groups, dstate, columns).
        headdim: columns of a head.
    """
    factor = decay.repeat_interleave(headdim, dim=-1)[:, :, :, None, :]
    entries = []
    for kept, added in zip(factor.unbind(1), inflow.unbind(1), strict=True):
        entries.append(state)
        state = kept * state + added
    return torch.stack(entries, dim=1), state
