"""Linear functions of k-mers: as trained weights beside a network, and as a fitted gapped k-mer machine.

A pattern is the offsets of the bases that count, as (0, 1, 2, 3, 4, 5) for a 6-mer and (0, 2, 3, 5, 6, 7) for a gapped
one; a k-mer is numbered in base 4, ACGT = 0123, its first base the most significant. K-mers with another letter are
left out. The features of :class:`GappedKmers` are those of :mod:`genossm.baselines.gapped_kmer`, which fits it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genossm import vocab
from genossm.config import GappedKmerConfig


def kmer_codes(input_ids: Tensor, offsets: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The number of the k-mer at every place, int64 (batch, places), and whether it is whole, bool.

    There are ``seqlen - max(offsets)`` places, or none; what is not whole has number 0.
    """
    places = max(0, input_ids.shape[1] - max(offsets))
    digits = input_ids - vocab.FIRST_BASE
    whole = (digits >= 0) & (digits < 4)
    code = torch.zeros_like(digits[:, :places])
    complete = torch.ones_like(whole[:, :places])
    for offset in offsets:
        code = code * 4 + digits[:, offset : offset + places]
        complete = complete & whole[:, offset : offset + places]
    return torch.where(complete, code, 0), complete


class WideWeights(nn.Module):
    """A weight on every output for every k-mer, for k in ``ks``, and for every base at every place (``length`` > 0).

    All begin at zero, so at first they say nothing; a weight table is divided by 2k, for a base is in k k-mers.
    """

    def __init__(self, ks: Sequence[int], length: int, outputs: int) -> None:
        super().__init__()
        self.ks, self.length = tuple(ks), length
        self.tables = nn.ParameterList(nn.Parameter(torch.zeros(4**k, outputs)) for k in ks)
        self.places = nn.Parameter(torch.zeros(length * 4, outputs)) if length else None

    def forward(self, input_ids: Tensor, bases: Tensor) -> Tensor:
        """(batch, outputs) of input_ids (batch, seqlen) and the same one-hot, (batch, 4, seqlen)."""
        total = bases.new_zeros(len(input_ids), self.tables[0].shape[1] if self.ks else self._outputs())
        for k, table in zip(self.ks, self.tables, strict=True):
            code, whole = kmer_codes(input_ids, range(k))
            if code.shape[1]:
                counted = whole.to(table.dtype)
                total = total + nn.functional.embedding_bag(code, table, per_sample_weights=counted, mode="sum") / (
                    2 * k
                )
        if self.places is not None:
            total = total + bases.mT.flatten(1) @ self.places
        return total

    def _outputs(self) -> int:
        return 0 if self.places is None else self.places.shape[1]


class GappedKmers(nn.Module):
    """The margins of a linear machine on gapped k-mers; nothing in it is trained here.

    Features of a group of patterns: the square roots of the counts of all its k-mers, both strands' where the
    configuration says so, scaled to length 1 together. Features by position: one for every k-mer at every place, scaled
    to length 1 together.
    """

    weight: Tensor
    position_weight: Tensor
    bias: Tensor

    def __init__(self, config: GappedKmerConfig, outputs: int) -> None:
        super().__init__()
        self.config = config
        rows = sum(4 ** len(pattern) for group in config.groups for pattern in group)
        placed = sum(max(0, config.length - k + 1) * 4**k for k in config.position_ks)
        self.register_buffer("weight", torch.zeros(rows, outputs))
        self.register_buffer("position_weight", torch.zeros(placed, outputs))
        self.register_buffer("bias", torch.zeros(outputs))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Margins (batch, outputs) of input_ids int64 (batch, seqlen); padding is no base."""
        strands = [input_ids]
        if self.config.both_strands:
            complement = torch.from_numpy(vocab.COMPLEMENT).long().to(input_ids.device)
            strands.append(complement[input_ids].flip(1))
        margins = self.bias.expand(len(input_ids), -1)
        start = 0
        for group in self.config.groups:
            summed, squares = torch.zeros_like(margins), margins.new_zeros(len(input_ids), 1)
            for pattern in group:
                size = 4 ** len(pattern)
                counts = margins.new_zeros(len(input_ids), size)
                for ids in strands:
                    code, whole = kmer_codes(ids, pattern)
                    counts.scatter_add_(1, code, whole.to(counts.dtype))
                summed = summed + counts.sqrt() @ self.weight[start : start + size]
                squares = squares + counts.sum(1, keepdim=True)
                start += size
            margins = margins + summed / squares.clamp(min=1).sqrt()
        return margins + self._by_position(input_ids) if self.config.position_ks else margins

    def _by_position(self, input_ids: Tensor) -> Tensor:
        summed = self.bias.new_zeros(len(input_ids), len(self.bias))
        found = self.bias.new_zeros(len(input_ids), 1)
        start = 0
        for k in self.config.position_ks:
            places = max(0, self.config.length - k + 1)
            code, whole = kmer_codes(input_ids[:, : self.config.length], range(k))
            here = torch.arange(code.shape[1], device=code.device) * 4**k + start
            rows = self.position_weight[code + here]  # (batch, places, outputs)
            summed = summed + (rows * whole[..., None]).sum(1)
            found = found + whole.sum(1, keepdim=True)
            start += places * 4**k
        return summed / found.clamp(min=1).sqrt()
