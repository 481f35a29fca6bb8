"""Mamba-1 (arXiv:2312.00752): a short convolution, then a scan whose B, C and time step depend on the input.

Names, shapes and initial values are those of the official ``mamba_simple.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genossm.config import ModelConfig
from genossm.kernels.causal_conv1d import causal_conv1d
from genossm.kernels.mamba_inner import Direction, mamba_inner
from genossm.kernels.selective_scan import selective_scan
from genossm.models.mixers.base import Core, GatedMixer, Reading, State
from genossm.models.ssm.discretize import inverse_softplus
from genossm.models.ssm.init import log_uniform_dt


class MambaCore(Core):
    """Convolution, input-dependent parameters, selective scan.

    State: the last d_conv - 1 inputs (batch, d_conv - 1, d_inner) and h (batch, d_inner, d_state).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.d_state, self.dt_rank = config.d_state, config.resolved_dt_rank
        bound = config.d_conv**-0.5
        self.conv_weight = nn.Parameter(torch.empty(config.d_inner, config.d_conv).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.empty(config.d_inner).uniform_(-bound, bound))
        self.x_proj = nn.Linear(config.d_inner, self.dt_rank + 2 * config.d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, config.d_inner, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        dt_min = config.initial_dt_min
        dt = log_uniform_dt(config.d_inner, dt_min, config.dt_max).clamp(min=min(1e-4, dt_min))
        self.dt_bias = nn.Parameter(inverse_softplus(dt))
        rates = torch.arange(1, config.d_state + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(torch.log(rates).repeat(config.d_inner, 1))
        self.D = nn.Parameter(torch.ones(config.d_inner))

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
        taps, h = (None, None) if state is None else state
        where: Any = {"mask": mask, "segments": segments, "reverse": reverse}
        x, taps = causal_conv1d(x, self.conv_weight, self.conv_bias, initial_taps=taps, **where)
        dt, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y, h = selective_scan(
            x, self.dt_proj(dt), -torch.exp(self.A_log), B, C,
            D=self.D, dt_bias=self.dt_bias, initial_state=h, **where,
        )  # fmt: skip
        return y, (taps, h)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """See :class:`Core`; the recurrence itself, as the operators' checks and tiles take longer than one token."""
        taps, h = state
        window = torch.cat([taps, x_t[:, None]], dim=1)
        x = F.silu((window * self.conv_weight.mT).sum(1) + self.conv_bias)
        dt, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        dt = F.softplus(self.dt_proj(dt) + self.dt_bias)
        decay = torch.exp(dt[..., None] * -torch.exp(self.A_log))
        h = torch.addcmul(decay * h, (dt * x)[..., None], B[:, None])
        y = torch.addcmul((h @ C[..., None])[..., 0], self.D, x)
        return y, (window[:, 1:], h)

    def direction(self, state: State | None, reverse: bool) -> Direction:
        """This core for the fused operator."""
        taps, h = (None, None) if state is None else state
        return Direction(
            self.conv_weight, self.conv_bias, self.x_proj.weight, self.dt_proj.weight, self.dt_bias,
            -torch.exp(self.A_log), self.D, reverse, taps, h,
        )  # fmt: skip

    def init_state(self, batch: int) -> State:
        """Zeros: no inputs yet, an empty h."""
        d_inner, d_conv = self.conv_weight.shape
        return (
            self.conv_weight.new_zeros(batch, d_conv - 1, d_inner),
            self.conv_weight.new_zeros(batch, d_inner, self.d_state),
        )


class Mamba(GatedMixer):
    """The Mamba-1 block."""

    @staticmethod
    def build_core(config: ModelConfig) -> Core:
        """A selective core."""
        return MambaCore(config)

    def mix(
        self, x: Tensor, readings: Sequence[Reading], *, mask: Tensor | None, segments: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """As :meth:`Mixer.mix`, by the operator that reads its input once for all directions."""
        cores = [(core, state, reverse) for core, state, reverse in readings if isinstance(core, MambaCore)]
        directions = [core.direction(state, reverse) for core, state, reverse in cores]
        y, states = mamba_inner(self.in_proj(x), directions, mask=mask, segments=segments)
        return self.out_proj(y), list(states)
