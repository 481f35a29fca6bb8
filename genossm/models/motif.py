"""A small network on one-hot bases: motifs, the best match of each nearby, then a few residual blocks.

The architecture of convolutional models of regulatory DNA (Alipanahi et al. 2015, Kelley et al. 2016) with one
bidirectional state space (S4D, arXiv:2206.11893) in place of deeper layers: at the length of a promoter or a peak it
sees the whole sequence. Padding changes nothing at the other bases in evaluation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genossm import vocab
from genossm.config import MotifConfig
from genossm.kernels.long_conv import long_conv

PERIOD = 32
"""Steps that the slowest wave of an untrained state space block takes; the length of a pooled peak of 128 bp."""
SHORT = 128
"""Up to so many steps a product with a Toeplitz matrix is faster than a Fourier transform."""


def one_hot(input_ids: Tensor) -> Tensor:
    """float32 (batch, 4, seqlen) of int64 (batch, seqlen): zeros where there is no base."""
    bases = torch.arange(vocab.FIRST_BASE, vocab.FIRST_BASE + 4, device=input_ids.device)
    return (input_ids[:, None, :] == bases[:, None]).float()


class ConvolutionBlock(nn.Module):
    """x + dropout(conv(relu(norm(x)))), (batch, channels, seqlen)."""

    def __init__(self, config: MotifConfig, dilation: int) -> None:
        super().__init__()
        reach = dilation * (config.kernel // 2)
        self.norm = nn.BatchNorm1d(config.filters)
        self.conv = nn.Conv1d(config.filters, config.filters, config.kernel, padding=reach, dilation=dilation)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``mask``: float (batch, 1, seqlen) or None."""
        return x + self.dropout(self.conv(masked(F.relu(self.norm(x)), mask)))


class StateSpaceBlock(nn.Module):
    """x + GLU(linear(gelu(y))), where y is norm(x) through a diagonal state space in both directions.

    The state space does not depend on the input, so it is a convolution with a kernel as long as the sequence on
    either side; the two directions share decays, frequencies and time steps and have weights of their own.
    """

    def __init__(self, config: MotifConfig) -> None:
        super().__init__()
        dim, n = config.filters, config.d_state
        self.norm = nn.BatchNorm1d(dim)
        log_dt = torch.linspace(math.log(0.02), math.log(0.3), dim)[torch.randperm(dim)]
        self.log_dt = nn.Parameter(log_dt)
        self.A_log_real = nn.Parameter(torch.linspace(math.log(0.5), math.log(4.0), n).repeat(dim, 1))
        self.freq = nn.Parameter((2 * math.pi / PERIOD * torch.arange(n)).repeat(dim, 1))
        self.C = nn.Parameter(torch.randn(2, dim, n, 2) / math.sqrt(n))
        self.mix = nn.Conv1d(dim, 2 * dim, 1)
        self.dropout = nn.Dropout(config.dropout)

    def kernels(self, length: int) -> Tensor:
        """(2, channels, length): the responses to the past and to the future, by distance."""
        dt = torch.exp(self.log_dt)[:, None]
        decay = torch.complex(-torch.exp(self.A_log_real) * dt, self.freq)
        waves = torch.exp(decay[..., None] * torch.arange(length, device=dt.device))  # (channels, n, length)
        C = torch.view_as_complex(self.C)
        return torch.einsum("dcn,cnl->dcl", C, waves).real * dt

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``mask``: float (batch, 1, seqlen) or None."""
        u = masked(self.norm(x), mask)
        past, future = self.kernels(x.shape[-1])
        y = both_sides(u, past, future)
        return x + self.dropout(F.glu(self.mix(F.gelu(y)), dim=1))


def both_sides(u: Tensor, past: Tensor, future: Tensor) -> Tensor:
    """y_i = sum_{j <= i} past_{i-j} u_j + sum_{j > i} future_{j-i} u_j.

    u: (batch, channels, n). past, future: (channels, n).
    """
    n = u.shape[-1]
    future = torch.cat([torch.zeros_like(future[:, :1]), future[:, 1:]], dim=1)
    if n > SHORT:
        there = long_conv(u.mT, past).mT
        return there + long_conv(u.mT, future, reverse=True).mT
    two_sided = torch.cat([future[:, 1:].flip(1), past], dim=1)  # by i - j from 1 - n to n - 1
    steps = torch.arange(n, device=u.device)
    toeplitz = two_sided[:, steps[None, :] - steps[:, None] + n - 1]  # (channels, j, i)
    return torch.bmm(u.transpose(0, 1), toeplitz).transpose(0, 1)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros at padding."""
    return x if mask is None else x * mask


class MotifNetwork(nn.Module):
    """input_ids (batch, seqlen) to hidden states (batch, filters, ceil(seqlen / pool))."""

    def __init__(self, config: MotifConfig) -> None:
        super().__init__()
        self.config = config
        self.motifs = nn.Conv1d(4, config.filters, config.width, padding=config.width // 2, bias=False)
        self.norm = nn.BatchNorm1d(config.filters)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            StateSpaceBlock(config) if letter == "S" else ConvolutionBlock(config, 1 + config.blocks[:i].count("C"))
            for i, letter in enumerate(config.blocks)
        )
        self.final_norm = nn.BatchNorm1d(config.filters)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Hidden states, and which of them count: bool (batch, steps), or None for all."""
        return self.read(one_hot(input_ids), mask)

    def read(self, bases: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The same of bases (batch, 4, seqlen), one-hot or any mixture; mask bool (batch, seqlen)."""
        weight = None if mask is None else mask[:, None].to(bases.dtype)
        x = self.motifs(bases)
        if self.config.pool > 1:
            # the best match first, then norm and ReLU: the same up to the sign of a scale, on a quarter of the numbers
            x = x if mask is None else x.masked_fill(~mask[:, None], torch.finfo(x.dtype).min)
            x = F.max_pool1d(x, self.config.pool, ceil_mode=True)
            weight = None if weight is None else F.max_pool1d(weight, self.config.pool, ceil_mode=True)
        x = masked(F.relu(self.norm(x if weight is None else x.masked_fill(weight == 0, 0.0))), weight)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, weight)
        x = masked(F.relu(self.final_norm(x)), weight)
        return x, None if weight is None else weight[:, 0] > 0
