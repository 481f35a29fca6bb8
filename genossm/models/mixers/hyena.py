"""Hyena (arXiv:2302.10866): gates around long convolutions, whose filters a small network makes from the positions.

Names, shapes and initial values follow the official ``standalone_hyenadna.py`` (HyenaDNA, arXiv:2306.15794). A filter
is as long as the sequence, so there is no state of fixed size: a Hyena mixer reads whole sequences, up to the length
that its filters are made for.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from genossm.config import ModelConfig
from genossm.kernels.causal_conv1d import causal_conv1d
from genossm.kernels.long_conv import long_conv
from genossm.models.mixers.base import Core, Mixer, State, scale_residual


class ImplicitFilter(nn.Module):
    """Filters (order - 1, d_inner, length): sine network of the position, under an exponential window.

    Attributes:
        z: (1, max_length, emb_dim), time in [0, 1], then cosines and sines of it.
        t: (1, max_length, 1), time in [0, 1].
        deltas: (1, 1, (order - 1) * d_inner), the decay of the window of each channel.
        bias: ((order - 1) * d_inner,), weight of the skip around each convolution.
    """

    z: Tensor
    t: Tensor
    deltas: Tensor
    SHIFT = 0.05  # of the window, so that no lag is out of reach

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        options = config.hyena
        self.order, self.d_inner, self.max_length = options.order, config.d_inner, options.max_length
        width = (options.order - 1) * config.d_inner
        bands = (options.emb_dim - 1) // 2
        t = torch.linspace(0, 1, self.max_length)[None, :, None]
        angle = 2 * math.pi * torch.arange(self.max_length)[None, :, None] / self.max_length
        phase = torch.linspace(1e-4, bands - 1, bands) * angle
        self.register_buffer("z", torch.cat([t, torch.cos(phase), -torch.sin(phase)], dim=-1))
        self.register_buffer("t", t)
        # the window falls to 0.01 at 1.5 times the longest sequence in the slowest channel, at 0.3 in the fastest
        self.register_buffer("deltas", torch.linspace(math.log(0.01) / 1.5, math.log(0.01) / 0.3, width)[None, None])
        self.bias = nn.Parameter(torch.randn(width))
        self.freq = nn.Parameter(torch.full((1, options.filter_order), options.sine_freq))
        widths = [options.emb_dim, *[options.filter_order] * (options.filter_layers + 1)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.last = nn.Linear(options.filter_order, width, bias=False)

    def forward(self, length: int) -> Tensor:
        """The filters for sequences of ``length`` tokens, (order - 1, d_inner, length).

        Raises:
            ValueError: longer than the filters are made for.
        """
        if length > self.max_length:
            raise ValueError(f"hyena reads at most {self.max_length} tokens (hyena.max_length), not {length}")
        h = self.z[:, :length]
        for layer in self.layers:
            h = torch.sin(self.freq * layer(h))
        h = self.last(h) * (torch.exp(-self.t[:, :length] * self.deltas.abs()) + self.SHIFT)
        return h[0].view(length, self.d_inner, self.order - 1).permute(2, 1, 0)

    def skips(self) -> Tensor:
        """Weights of the skips, (order - 1, d_inner)."""
        return self.bias.view(self.d_inner, self.order - 1).mT


class HyenaCore(Core):
    """Short convolution, then v <- conv(v * gate) for each gate but the first, which comes last.

    Columns in: order gates and v, d_inner each.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, taps = (config.hyena.order + 1) * config.d_inner, config.hyena.short_filter
        bound = taps**-0.5
        self.order, self.d_inner = config.hyena.order, config.d_inner
        self.short_weight = nn.Parameter(torch.empty(width, taps).uniform_(-bound, bound))
        self.short_bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        self.filter = ImplicitFilter(config)

    def forward(
        self,
        x: Tensor,
        *,
        state: State | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """See :class:`Core`; there is no state."""
        x, _ = causal_conv1d(
            x, self.short_weight, self.short_bias, silu=False, mask=mask, segments=segments, reverse=reverse
        )
        *gates, v = x.split(self.d_inner, dim=-1)
        filters = self.filter(x.shape[1])
        for k, D, gate in zip(filters, self.filter.skips(), reversed(gates[1:]), strict=True):
            v = long_conv(v * gate, k, D, mask=mask, segments=segments, reverse=reverse)
        return v * gates[0], ()

    def init_state(self, batch: int) -> State:
        """Nothing."""
        return ()


class Hyena(Mixer):
    """The Hyena operator; in_proj gives the gates and v in the order of the core's columns."""

    stateful = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        width = (config.hyena.order + 1) * config.d_inner
        self.in_proj = nn.Linear(config.d_model, width, bias=config.hyena.bias)
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=config.hyena.bias)
        scale_residual(self.out_proj, config)

    @staticmethod
    def build_core(config: ModelConfig) -> Core:
        """A core with its own filters."""
        return HyenaCore(config)

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gates and v; the second part is empty."""
        projected = self.in_proj(x)
        return projected, projected[..., :0]

    def project_out(self, y: Tensor, gate: Tensor) -> Tensor:
        """See :class:`Mixer`."""
        return self.out_proj(y)
