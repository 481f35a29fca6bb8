"""Mamba-2 (arXiv:2405.21060): heads with one decay each, so that the scan becomes matrix products.

Names, shapes and initial values are those of the official ``mamba2.py``. The preset ``linear_attention`` is the same
block without decay and time step: S_t = S_{t-1} + x_t B_t^T, y_t = S_t C_t (arXiv:2006.16236, no normaliser; the norm
in front of out_proj keeps the sum in range).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genossm.config import ModelConfig
from genossm.kernels.causal_conv1d import causal_conv1d
from genossm.kernels.ssd import ssd
from genossm.models.mixers.base import Core, Mixer, State, scale_residual
from genossm.models.ssm.discretize import inverse_softplus
from genossm.models.ssm.init import log_uniform_dt


class GatedRMSNorm(nn.Module):
    """RMSNorm(y * silu(z)) * weight, over groups of channels: gate first, then norm."""

    def __init__(self, dim: int, groups: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.groups, self.eps = groups, eps

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """(..., dim) to the same."""
        gated = (y * F.silu(z)).unflatten(-1, (self.groups, -1))
        return F.rms_norm(gated, gated.shape[-1:], eps=self.eps).flatten(-2) * self.weight


class SSDCore(Core):
    """Convolution over x, B and C, then the scan.

    Columns in: x (d_inner), B and C (n_groups * d_state each), dt (heads; none for linear attention).
    State: the last d_conv - 1 inputs of the convolution, and S (batch, heads, headdim, d_state).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        options = config.ssd
        self.d_inner, self.d_state, self.groups = config.d_inner, config.d_state, options.n_groups
        self.headdim, self.heads = options.headdim, config.d_inner // options.headdim
        self.dt_limit = options.dt_limit
        self.decays = config.mixer != "linear_attention"
        width, bound = conv_width(config), config.d_conv**-0.5
        self.conv_weight = nn.Parameter(torch.empty(width, config.d_conv).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound)) if options.conv_bias else None
        if self.decays:
            dt_min = config.initial_dt_min
            dt = log_uniform_dt(self.heads, dt_min, config.dt_max).clamp(min=min(1e-4, dt_min))
            self.dt_bias = nn.Parameter(inverse_softplus(dt))
            self.A_log = nn.Parameter(torch.log(torch.empty(self.heads).uniform_(1, 16)))
        self.D = nn.Parameter(torch.ones(self.heads))

    def forward(
        self,
        x: Tensor,
        *,
        state: State | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """See :class:`Core`. Padding is zeroed before the convolution and its time step is zero after it."""
        taps, S = (None, None) if state is None else state
        where: Any = {"mask": mask, "segments": segments, "reverse": reverse}
        into_conv, dt = x.split([self.conv_weight.shape[0], x.shape[-1] - self.conv_weight.shape[0]], dim=-1)
        xBC, taps = causal_conv1d(into_conv, self.conv_weight, self.conv_bias, initial_taps=taps, **where)
        x, B, C = xBC.split([self.d_inner, *[self.groups * self.d_state] * 2], dim=-1)
        B, C = (v.unflatten(-1, (self.groups, self.d_state)) for v in (B, C))
        if self.decays:
            A = -torch.exp(self.A_log)
            how: dict[str, Any] = {"dt_bias": self.dt_bias, "dt_limit": self.dt_limit, **where}
        else:
            dt, A = x.new_ones(*x.shape[:2], self.heads), x.new_zeros(self.heads)
            how = {"dt_softplus": False, **where}
        x = x.unflatten(-1, (self.heads, self.headdim))
        y, S = ssd(x, dt, A, B, C, D=self.D, initial_state=S, **how)
        return y.flatten(-2), (taps, S)

    def init_state(self, batch: int) -> State:
        """Zeros: no inputs yet, an empty S."""
        width, d_conv = self.conv_weight.shape
        return (
            self.conv_weight.new_zeros(batch, d_conv - 1, width),
            self.conv_weight.new_zeros(batch, self.heads, self.headdim, self.d_state),
        )


def conv_width(config: ModelConfig) -> int:
    """Channels of the convolution: x, B and C."""
    return config.d_inner + 2 * config.ssd.n_groups * config.d_state


class SSD(Mixer):
    """The Mamba-2 block; in_proj gives z, x, B, C, dt in this order."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        options = config.ssd
        heads = config.d_inner // options.headdim if config.mixer != "linear_attention" else 0
        self.in_proj = nn.Linear(config.d_model, config.d_inner + conv_width(config) + heads, bias=options.bias)
        self.norm = GatedRMSNorm(config.d_inner, options.n_groups, config.norm_eps)
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=options.bias)
        scale_residual(self.out_proj, config)

    @staticmethod
    def build_core(config: ModelConfig) -> Core:
        """A core with one decay a head."""
        return SSDCore(config)

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The core's columns and the gate z (batch, seqlen, d_inner)."""
        projected = self.in_proj(x)
        d_inner = self.config.d_inner
        return projected[..., d_inner:], projected[..., :d_inner]

    def project_out(self, y: Tensor, gate: Tensor) -> Tensor:
        """See :class:`Mixer`."""
        return self.out_proj(self.norm(y, gate))
