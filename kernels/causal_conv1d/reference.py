"""Depthwise causal convolution of a few taps, with what it carries: the definition, in plain PyTorch.

    y_t = act(bias + sum_k weight_{w-1-k} x_{t-k}),   k = 0 .. w-1, only over tokens of t's own segment

A token before the first one comes from the carried taps (zeros without them). With ``reverse`` the sequence is
read from its last token; the taps then look to the right. Tap order is that of Mamba: weight[:, w-1] meets x_t.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_conv1d_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    silu: bool = True,
    initial_taps: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.causal_conv1d.causal_conv1d`."""
    if mask is not None:
        x = x * mask[..., None]
    y = _taps_sum(x, weight, bias, initial_taps, segments, reverse)
    return F.silu(y) if silu else y, final_taps(x, weight.shape[1] - 1, initial_taps, mask, segments, reverse)


def _taps_sum(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor | None, segments: Tensor | None, reverse: bool
) -> Tensor:
    seqlen, width = x.shape[1], weight.shape[1]
    history = x.new_zeros(x.shape[0], width - 1, x.shape[2]) if taps is None else taps
    stream = torch.cat([x, history] if reverse else [history, x], dim=1)
    if segments is not None:  # the carried taps belong to the first segment in reading order
        first = segments[:, -1:] if reverse else segments[:, :1]
        edge = first.expand(-1, width - 1)
        owners = torch.cat([segments, edge] if reverse else [edge, segments], dim=1)
    y = torch.zeros_like(x)
    for k in range(width):
        begin = k if reverse else width - 1 - k
        term = stream[:, begin : begin + seqlen] * weight[:, width - 1 - k]
        if segments is not None:
            term = term * (owners[:, begin : begin + seqlen] == segments)[..., None]
        y = y + term
    return y if bias is None else y + bias


def final_taps(
    x: Tensor, count: int, taps: Tensor | None, mask: Tensor | None, segments: Tensor | None, reverse: bool
) -> Tensor:
    """The last ``count`` real inputs in reading order, in sequence order: what the next chunk must be given.

    Padding is passed over, so a ragged batch carries each row's own last tokens; tokens of earlier segments
    count as zeros. The taps have memory of their own: a slice would keep all of ``x`` alive as long as the state.
    """
    plain = mask is None and segments is None
    if plain and x.shape[1] >= count:
        return (x[:, :count] if reverse else x[:, x.shape[1] - count :]).clone()
    history = x.new_zeros(x.shape[0], count, x.shape[2]) if taps is None else taps
    stream = torch.cat([x, history] if reverse else [history, x], dim=1)
    if plain:
        return (stream[:, :count] if reverse else stream[:, stream.shape[1] - count :]).clone()
    batch, length = stream.shape[:2]
    valid = x.new_ones(batch, length, dtype=torch.bool)
    inside = slice(0, x.shape[1]) if reverse else slice(count, length)
    if mask is not None:
        valid[:, inside] = mask
    order = torch.arange(length, device=x.device)
    rank = (length - 1 - order) if reverse else order
    picked = torch.where(valid, rank, -1).topk(count, dim=1, sorted=True).indices
    picked = picked if reverse else picked.flip(1)
    chosen = stream.gather(1, picked[..., None].expand(-1, -1, x.shape[2]))
    if segments is not None:
        first = segments[:, -1:] if reverse else segments[:, :1]
        edge = first.expand(-1, count)
        owners = torch.cat([segments, edge] if reverse else [edge, segments], dim=1).gather(1, picked)
        newest = owners[:, :1] if reverse else owners[:, -1:]
        chosen = chosen * (owners == newest)[..., None]
    return chosen
