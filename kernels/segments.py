"""Packed sequences: where a state may flow, and where it may not.

Several sequences can share one row; ``segments`` (batch, seqlen) int64 numbers them, equal for the tokens of one
sequence and different for neighbours. A carried state belongs to the first segment in reading order.
"""

from __future__ import annotations

import torch
from torch import Tensor


def without_padding(segments: Tensor, mask: Tensor | None) -> Tensor:
    """``segments`` where each padding token takes the number of the real token before it (else the first real one).

    So padding never starts a segment, whatever number it carries. Both int (batch, seqlen) in reading order.
    """
    if mask is None:
        return segments
    position = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    previous = torch.where(mask, position, -1).cummax(dim=1).values
    first_real = mask.to(torch.int8).argmax(dim=1, keepdim=True)
    return segments.gather(1, torch.where(previous < 0, first_real, previous))


def starts(segments: Tensor | None, mask: Tensor | None = None, *, reverse: bool = False) -> Tensor | None:
    """True where a segment begins in reading order, except at the very first token; bool (batch, seqlen).

    Args:
        segments: int (batch, seqlen), or None for one segment a row.
        mask: bool (batch, seqlen), False at padding, which never starts a segment.
        reverse: read from the last token to the first.
    """
    if segments is None:
        return None
    if reverse:
        begins = starts(segments.flip(1), None if mask is None else mask.flip(1))
        return None if begins is None else begins.flip(1)
    numbers = without_padding(segments, mask)
    begins = torch.zeros_like(numbers, dtype=torch.bool)
    begins[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    return begins
