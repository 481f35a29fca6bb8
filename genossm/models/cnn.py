"""The convolutional baseline of the Genomic Benchmarks (Gresova et al. 2023, doi:10.1186/s12863-023-01123-8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genossm import vocab

KERNEL, WIDTHS = 8, (16, 8, 4)


def flattened(length: int) -> int:
    """Features that the convolutions leave of ``length`` bases; 0 where it is too short for them."""
    for _ in WIDTHS:
        length = max(0, length - KERNEL + 1) // 2
    return length * WIDTHS[-1]


class BenchmarkCNN(nn.Module):
    """An embedding, three times convolution, norm, ReLU and pooling, and two linear layers; sequences of one length."""

    def __init__(self, length: int, outputs: int, d_embedding: int = 100) -> None:
        super().__init__()
        if not flattened(length):
            raise ValueError(f"{length} bp are too short for three convolutions of {KERNEL}")
        self.length = length
        self.embedding = nn.Embedding(vocab.VOCAB_SIZE, d_embedding, padding_idx=vocab.PAD)
        layers: list[nn.Module] = []
        for before, after in zip((d_embedding, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv1d(before, after, KERNEL), nn.BatchNorm1d(after), nn.ReLU(), nn.MaxPool1d(2)]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Linear(flattened(length), 512), nn.Linear(512, outputs))

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (batch, outputs) of input_ids int64 (batch, seqlen), cut or padded to ``length``."""
        ids = input_ids[:, : self.length]
        if ids.shape[1] < self.length:
            ids = F.pad(ids, (0, self.length - ids.shape[1]), value=vocab.PAD)
        return self.dense(torch.flatten(self.convolutions(self.embedding(ids).mT), 1))
