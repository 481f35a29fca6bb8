"""RWKV: time mixing of versions 4 (arXiv:2305.13048) and 7 (arXiv:2503.14456), and channel mixing of version 7.

Every projection looks at a blend of its token and the one before it (token shift), so all of them are part of the
core and read in its direction; only the projection out is shared by both directions. An RWKV model has time mixing
and channel mixing by turns: the pattern ``RK``.

Version 7 also blends the values of later blocks with those of the first block. That ties blocks together across the
sequence, which no mixer here does: each block is of the kind that stands first in the official model.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genossm.config import ModelConfig
from genossm.kernels.causal_conv1d import causal_conv1d
from genossm.kernels.delta_rule import delta_rule
from genossm.kernels.wkv import EMPTY, wkv
from genossm.models.mixers.base import Core, Mixer, State, scale_residual

SLOWEST_DECAY = math.exp(-0.5)
"""RWKV-7: the largest rate of decay, as log decay is -e^-1/2 sigmoid(.)."""


def token_shift(x: Tensor, last: Tensor | None, **where: Any) -> tuple[Tensor, Tensor]:
    """The token before each token in reading order, zero at a start; and the last token, to hand on.

    Args:
        x: (batch, seqlen, d_model).
        last: (batch, 1, d_model), the token before the first.
        where: mask, segments, reverse.
    """
    taps = torch.tensor([1.0, 0.0], dtype=x.dtype, device=x.device).expand(x.shape[-1], 2).contiguous()
    return causal_conv1d(x, taps, silu=False, initial_taps=last, **where)


class RWKV4Core(Core):
    """Receptance, key and value of shifted tokens, then the weighted average of values.

    State: the last token (batch, 1, d_model), and numerator, denominator, maximum (batch, d_model).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.d_model
        place = torch.arange(dim) / max(dim - 1, 1)
        slowest = -5.0 if config.dt_window is None else min(-5.0, -math.log(config.dt_window))
        self.time_decay = nn.Parameter(slowest + (3 - slowest) * place**0.7)
        self.time_first = nn.Parameter(math.log(0.3) + 0.5 * ((torch.arange(dim) + 1) % 3 - 1))
        blend = torch.arange(dim) / dim
        self.time_mix_key, self.time_mix_value = nn.Parameter(blend), nn.Parameter(blend.clone())
        self.time_mix_receptance = nn.Parameter(blend**0.5)
        self.key, self.value, self.receptance = (nn.Linear(dim, dim, bias=False) for _ in range(3))

    def forward(
        self,
        x: Tensor,
        *,
        state: State | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """See :class:`Core`."""
        where: Any = {"mask": mask, "segments": segments, "reverse": reverse}
        before, last = token_shift(x, None if state is None else state[0], **where)
        k = self.key(torch.lerp(before, x, self.time_mix_key))
        v = self.value(torch.lerp(before, x, self.time_mix_value))
        r = self.receptance(torch.lerp(before, x, self.time_mix_receptance))
        entry = None if state is None else (state[1], state[2], state[3])
        y, after = wkv(k, v, -torch.exp(self.time_decay), self.time_first, initial_state=entry, **where)
        return torch.sigmoid(r) * y, (last, *after)

    def init_state(self, batch: int) -> State:
        """No token, no value."""
        dim = len(self.time_decay)
        zeros = self.time_decay.new_zeros(batch, dim)
        return zeros[:, None], zeros, zeros, torch.full_like(zeros, EMPTY)


class RWKV7Core(Core):
    """Heads with a matrix state under the generalised delta rule.

    Names of the weights as in the official ``rwkv_v7_numpy.py``. State: the last token (batch, 1, d_model), and S
    (batch, heads, headdim, headdim), keys by values.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, rank = config.d_model, config.rwkv.rank
        self.headdim, self.heads = config.rwkv.headdim, dim // config.rwkv.headdim
        place = torch.arange(dim) / dim
        for name, power in {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}.items():
            self.register_parameter(f"m{name}", nn.Parameter(1 - place**power))
        slowest = -6.5
        if config.dt_window is not None:  # the bias whose decay lasts for the window
            slowest = min(slowest, -math.log(max(SLOWEST_DECAY * config.dt_window - 1, 1)))
        along = torch.arange(dim) / max(dim - 1, 1)
        self.w_bias = nn.Parameter(slowest + (-1.5 - slowest) * along**0.85)
        self.a_bias = nn.Parameter(torch.zeros(dim))
        for name in "wag":
            self.register_parameter(f"W{name}1", nn.Parameter(torch.zeros(dim, rank)))
            self.register_parameter(f"W{name}2", nn.Parameter(0.1 * nn.init.orthogonal_(torch.empty(rank, dim))))
        nn.init.normal_(self.Wg1, std=dim**-0.5)
        self.k_k, self.k_a = nn.Parameter(torch.full((dim,), 0.85)), nn.Parameter(torch.ones(dim))
        self.r_k = nn.Parameter(torch.zeros(dim))
        self.Wr, self.Wk, self.Wv = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.ln = nn.GroupNorm(self.heads, dim, eps=64e-5)

    Wg1: nn.Parameter

    def low_rank(self, x: Tensor, name: str, activation: Any) -> Tensor:
        """activation(x W1) W2 of one of the three low-rank projections."""
        return activation(x @ getattr(self, f"W{name}1")) @ getattr(self, f"W{name}2")

    def forward(
        self,
        x: Tensor,
        *,
        state: State | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """See :class:`Core`."""
        where: Any = {"mask": mask, "segments": segments, "reverse": reverse}
        before, last = token_shift(x, None if state is None else state[0], **where)
        xr, xw, xk, xv, xa, xg = (torch.lerp(x, before, getattr(self, f"m{name}")) for name in "rwkvag")
        r, k, v = self.Wr(xr), self.Wk(xk), self.Wv(xv)
        w = -SLOWEST_DECAY * torch.sigmoid(self.low_rank(xw, "w", torch.tanh) + self.w_bias)
        a = torch.sigmoid(self.low_rank(xa, "a", lambda z: z) + self.a_bias)
        g = self.low_rank(xg, "g", torch.sigmoid)
        kappa, k = k * self.k_k, k * (1 + (a - 1) * self.k_a)
        r, w, k, v, kappa, a = (z.unflatten(-1, (self.heads, self.headdim)) for z in (r, w, k, v, kappa, a))
        kappa = F.normalize(kappa, dim=-1)
        y, S = delta_rule(r, w, k, v, kappa, a, initial_state=None if state is None else state[1], **where)
        normed = self.ln(y.flatten(0, 1).flatten(1)).view_as(y)
        bonus = (r * k * self.r_k.view(self.heads, self.headdim)).sum(-1, keepdim=True) * v
        return (normed + bonus).flatten(2) * g, (last, S)

    def init_state(self, batch: int) -> State:
        """No token, an empty S."""
        return (
            self.w_bias.new_zeros(batch, 1, len(self.w_bias)),
            self.w_bias.new_zeros(batch, self.heads, self.headdim, self.headdim),
        )


class ChannelMixCore(Core):
    """relu(W x)^2 of a shifted token. State: the last token (batch, 1, d_model)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mix = nn.Parameter(1 - (torch.arange(config.d_model) / config.d_model) ** 4)
        self.key = nn.Linear(config.d_model, config.d_inner, bias=False)

    def forward(
        self,
        x: Tensor,
        *,
        state: State | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """See :class:`Core`."""
        before, last = token_shift(
            x, None if state is None else state[0], mask=mask, segments=segments, reverse=reverse
        )
        return torch.relu(self.key(torch.lerp(x, before, self.mix))).square(), (last,)

    def init_state(self, batch: int) -> State:
        """No token."""
        return (self.mix.new_zeros(batch, 1, len(self.mix)),)


class RWKV(Mixer):
    """Time mixing: out_proj of what the core gives."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.out_proj = nn.Linear(self.width_out(config), config.d_model, bias=False)
        scale_residual(self.out_proj, config)

    @staticmethod
    def width_out(config: ModelConfig) -> int:
        """Columns that the core gives."""
        return config.d_model

    @staticmethod
    def build_core(config: ModelConfig) -> Core:
        """Version 4 or 7, as the preset says."""
        return RWKV4Core(config) if config.mixer == "rwkv4" else RWKV7Core(config)

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens as they are; the second part is empty."""
        return x, x[..., :0]

    def project_out(self, y: Tensor, gate: Tensor) -> Tensor:
        """See :class:`Mixer`."""
        return self.out_proj(y)


class RWKVChannelMix(RWKV):
    """Channel mixing: the feed-forward half of an RWKV model, d_inner wide."""

    reach = 1

    @staticmethod
    def width_out(config: ModelConfig) -> int:
        """Columns that the core gives."""
        return config.d_inner

    @staticmethod
    def build_core(config: ModelConfig) -> Core:
        """Version 7."""
        return ChannelMixCore(config)
