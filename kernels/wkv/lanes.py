"""RWKV-4's weighted average by lanes, plain PyTorch, any device and dtype: linear in length.

A block of tokens stands as lanes of LANE tokens. All lanes take their j-th token at once, each from an empty state;
then the lanes' ends are carried along, and every output merges what its lane had with what the lane started from.
Only the state at block borders is kept, and backward recomputes a block from it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genossm.kernels.segments import starts
from genossm.kernels.wkv.reference import EMPTY, Triple, choose, empty, merge

LANE = 64
BLOCK = 64 * LANE


def wkv_lanes(
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    *,
    initial_state: Triple | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Triple]:
    """Arguments and results as :func:`genossm.kernels.wkv.wkv`."""
    kept = torch.ones_like(k[..., 0], dtype=torch.bool) if mask is None else mask
    begins = starts(segments, mask, reverse=reverse)
    parts = [k, v, kept, torch.zeros_like(kept) if begins is None else begins]
    if reverse:
        parts = [part.flip(1) for part in parts]
    state = empty(k[:, 0]) if initial_state is None else initial_state
    ys = []
    for begin in range(0, k.shape[1], BLOCK):
        pieces = [part[:, begin : begin + BLOCK] for part in parts]
        y, *state_parts = checkpoint(_block, *pieces, w, u, *state, use_reentrant=False, preserve_rng_state=False)
        state = (state_parts[0], state_parts[1], state_parts[2])
        ys.append(y)
    y = torch.cat(ys, dim=1)
    return (y.flip(1) if reverse else y), state


def _block(
    k: Tensor, v: Tensor, kept: Tensor, begins: Tensor, w: Tensor, u: Tensor, *state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs (batch, length, dim) of one block and the state after it."""
    batch, length, dim = k.shape
    lane = min(LANE, length)
    pad = -length % lane
    k, v = (F.pad(part, (0, 0, 0, pad)).view(batch, -1, lane, dim) for part in (k, v))
    kept, begins = (F.pad(part, (0, pad)).view(batch, -1, lane, 1) for part in (kept, begins))
    one = torch.ones_like(k[:, :, 0])
    local, alone = empty(one), []
    for j in range(lane):
        if j:  # a segment that starts with the lane finds the local state empty anyway
            local = choose(begins[:, :, j], empty(one), local)
        alone.append(local)
        after = merge((local[0], local[1], local[2] + w), (v[:, :, j], one, k[:, :, j]))
        local = choose(kept[:, :, j], after, local)
    # what the lane started from, at each of its tokens: older by the tokens before it, gone behind a border
    steps = kept.cumsum(2)
    gone = begins.cumsum(2) > 0
    age = w * (steps - kept.to(steps.dtype))
    over, ended = (w * steps[:, :, -1]), gone[:, :, -1]
    carried: Triple = (state[0], state[1], state[2])
    entries = []
    for i in range(k.shape[1]):
        entries.append(carried)
        older = choose(ended[:, i], empty(carried[0]), (carried[0], carried[1], carried[2] + over[:, i]))
        carried = merge(older, (local[0][:, i], local[1][:, i], local[2][:, i]))
    num, den, top = (torch.stack(part, dim=1)[:, :, None] for part in zip(*entries, strict=True))
    top = torch.where(gone, EMPTY, top + age)
    before = [torch.stack(part, dim=2) for part in zip(*alone, strict=True)]
    both = merge((num, den, top), (before[0], before[1], before[2]))
    y_num, y_den, _ = merge(both, (v, torch.ones_like(v), k + u))
    return (y_num / y_den).view(batch, -1, dim)[:, :length], *carried
