"""Packed and padded sequences as plain rows: one sequence a row, its tokens at the left, in reading order.

A convolution has no gate to close at a border, so a time-invariant system takes its sequences apart first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genossm.kernels.segments import starts


@dataclass(frozen=True)
class Rows:
    """Where the real tokens of a (batch, seqlen) layout stand in a (rows, length) layout.

    Attributes:
        source: int64 (tokens,), index into batch * seqlen.
        target: int64 (tokens,), index into rows * length.
        shape: rows and length.
        lengths: int64 (rows,), tokens of each row.
        first, last: int64 (batch,), the row that the batch row's first and last sequence became.
    """

    source: Tensor
    target: Tensor
    shape: tuple[int, int]
    lengths: Tensor
    first: Tensor
    last: Tensor

    def gather(self, values: Tensor) -> Tensor:
        """(batch, seqlen, dim) to (rows, length, dim), zeros behind each row's end."""
        flat = values.reshape(-1, values.shape[-1])
        rows = flat.new_zeros(self.shape[0] * self.shape[1], values.shape[-1])
        return rows.index_copy(0, self.target, flat[self.source]).view(*self.shape, -1)

    def scatter(self, rows: Tensor, batch: int, seqlen: int) -> Tensor:
        """(rows, length, dim) back to (batch, seqlen, dim), zeros where there is no real token."""
        flat = rows.reshape(-1, rows.shape[-1])
        values = flat.new_zeros(batch * seqlen, rows.shape[-1])
        return values.index_copy(0, self.source, flat[self.target]).view(batch, seqlen, -1)


def unpack(batch: int, seqlen: int, mask: Tensor | None, segments: Tensor | None, device: torch.device) -> Rows:
    """The rows of a padded or packed batch that is already in reading order.

    A batch row without a real token keeps one empty row, so that it has a state to hand on.
    """
    valid = torch.ones(batch, seqlen, dtype=torch.bool, device=device) if mask is None else mask
    numbers = torch.zeros(batch, seqlen, dtype=torch.long, device=device) if segments is None else segments
    begins = starts(numbers, mask)
    assert begins is not None
    within = begins.cumsum(1)
    count = within[:, -1] + 1
    offset = count.cumsum(0) - count
    row = within + offset[:, None]
    source = valid.flatten().nonzero().squeeze(1)
    row_of = row.flatten()[source]
    lengths = torch.bincount(row_of, minlength=int(count.sum()))
    rank = torch.arange(source.numel(), device=device) - (lengths.cumsum(0) - lengths)[row_of]
    length = max(int(lengths.max()), 1)
    return Rows(source, row_of * length + rank, (int(count.sum()), length), lengths, offset, offset + count - 1)
