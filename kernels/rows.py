"""Packed and padded sequences as plain rows: one sequence a row, its tokens at the left, in reading order.

What has no gate to close at a border (a convolution, attention) takes its sequences apart first.
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
        """(batch, seqlen, ...) to (rows, length, ...), zeros behind each row's end."""
        flat = values.flatten(0, 1)
        rows = flat.new_zeros(self.shape[0] * self.shape[1], *flat.shape[1:])
        return rows.index_copy(0, self.target, flat[self.source]).unflatten(0, self.shape)

    def scatter(self, rows: Tensor, batch: int, seqlen: int) -> Tensor:
        """(rows, length, ...) back to (batch, seqlen, ...), zeros where there is no real token."""
        flat = rows.flatten(0, 1)
        values = flat.new_zeros(batch * seqlen, *flat.shape[1:])
        return values.index_copy(0, self.source, flat[self.target]).unflatten(0, (batch, seqlen))

    def enter(self, state: Tensor, empty: Tensor | None = None) -> Tensor:
        """The state in front of every row, (rows, ...): ``state`` (batch, ...) for the first sequence of a batch row.

        Args:
            state: what each batch row carries in.
            empty: (...), the state before any token; None for zeros.
        """
        count = self.shape[0]
        fresh = state.new_zeros(count, *state.shape[1:]) if empty is None else empty.expand(count, *state.shape[1:])
        return fresh.index_copy(0, self.first, state)

    def valid(self) -> Tensor:
        """bool (rows, length), True at the tokens of each row."""
        return torch.arange(self.shape[1], device=self.lengths.device) < self.lengths[:, None]


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
