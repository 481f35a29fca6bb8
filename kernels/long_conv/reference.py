"""A causal convolution with a filter as long as the sequence, as a sum: the definition.

    y_t = sum_{s <= t} k_{t-s} u_s + D u_t        over the tokens s of t's own segment

Time counts real tokens: padding between two tokens does not push them apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genossm.kernels.segments import without_padding


def long_conv_ref(
    u: Tensor,
    k: Tensor,
    D: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """Arguments and result as :func:`genossm.kernels.long_conv.long_conv`."""
    batch, seqlen, _ = u.shape
    valid = torch.ones(batch, seqlen, dtype=torch.bool, device=u.device) if mask is None else mask
    numbers = torch.zeros_like(valid, dtype=torch.long) if segments is None else segments
    if reverse:
        valid, numbers = valid.flip(1), numbers.flip(1)
    numbers = without_padding(numbers, valid)
    time = valid.cumsum(1)
    lag = time[:, :, None] - time[:, None, :]
    stretch = torch.zeros_like(numbers)
    stretch[:, 1:] = (numbers[:, 1:] != numbers[:, :-1]).cumsum(1)
    seen = valid[:, None, :] & (stretch[:, :, None] == stretch[:, None, :]) & (lag >= 0) & (lag < k.shape[1])
    weights = k[:, lag.clamp(0, k.shape[1] - 1)] * seen
    y = torch.einsum("dbts,bsd->btd", weights, u.flip(1) if reverse else u)
    y = y.flip(1) if reverse else y
    return y if D is None else y + D * u
