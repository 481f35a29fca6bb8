"""S4D (arXiv:2206.11893): a diagonal, time-invariant state space a channel, inside a gated block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genossm.config import ModelConfig
from genossm.kernels.lti import lti
from genossm.models.mixers.base import Core, GatedMixer, State
from genossm.models.ssm.discretize import zoh
from genossm.models.ssm.init import log_uniform_dt, s4d_eigenvalues


class S4DCore(Core):
    """One state space a channel, discretised by zero-order hold, then the skip D.

    State: x, as real and imaginary part, (batch, d_inner, d_state / 2, 2); conjugate pairs are kept once.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        pairs = max(config.d_state // 2, 1)
        eigenvalues = s4d_eigenvalues("lin" if config.lti.init == "auto" else config.lti.init, pairs).repeat(
            config.d_inner, 1
        )
        self.A_log_real = nn.Parameter(torch.log(-eigenvalues.real).float())
        self.A_imag = nn.Parameter(eigenvalues.imag.float())
        self.log_dt = nn.Parameter(torch.log(log_uniform_dt(config.d_inner, config.initial_dt_min, config.dt_max)))
        self.C = nn.Parameter(torch.view_as_real(torch.randn(config.d_inner, pairs, dtype=torch.cfloat)))
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
        """See :class:`Core`."""
        eigenvalues = torch.complex(-torch.exp(self.A_log_real), self.A_imag)
        lam, factor = zoh(eigenvalues, torch.exp(self.log_dt)[:, None])
        y, last = lti(
            x, lam, torch.view_as_complex(self.C) * factor,
            initial_state=None if state is None else torch.view_as_complex(state[0]),
            mask=mask, segments=segments, reverse=reverse,
        )  # fmt: skip
        return y + self.D * x, (torch.view_as_real(last),)

    def init_state(self, batch: int) -> State:
        """Zeros."""
        return (self.C.new_zeros(batch, *self.C.shape),)


class S4D(GatedMixer):
    """A gated block around S4D."""

    @staticmethod
    def build_core(config: ModelConfig) -> Core:
        """A time-invariant core."""
        return S4DCore(config)
