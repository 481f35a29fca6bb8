"""Time-invariant state spaces in a gated block: S4 and its family, each a preset of one mixer.

=============== ========================================== ===================== ==============
preset          A                                          discretisation        arXiv
=============== ========================================== ===================== ==============
``s4``          HiPPO, diagonal plus low rank              bilinear              2111.00396
``s4d``         diagonal                                   zero-order hold       2206.11893
``dss``         diagonal, weights normalised over a length zero-order hold       2203.14343
``lssl``        HiPPO, dense and trained                   bilinear              2110.13985
``lssl_fixed``  the same with A and dt frozen              bilinear              2110.13985
``s5``          diagonal, all channels in, all out         zero-order hold       2208.04933
``liquid_s4``   diagonal, plus B times the input           bilinear              2209.12951
=============== ========================================== ===================== ==============

What decays faster than a window forgets it. A channel with decay rate a and time step dt remembers about 1 / (a dt)
tokens, so with rate 1/2 and dt >= 0.001 it is 2,000 bp at most: for longer windows ``pretrain`` sets
``dt_window``, and the smallest dt becomes 1 / window.
Complex parameters are stored as real pairs. Every decay rate is an exponential, so it stays positive.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genossm.config import ModelConfig
from genossm.kernels.dense_lti import dense_lti
from genossm.kernels.diagonal_scan import diagonal_scan
from genossm.kernels.liquid_scan import liquid_scan
from genossm.kernels.lti import lti
from genossm.models.mixers.base import Core, GatedMixer, State
from genossm.models.ssm.discretize import bilinear, dense_gbt, dense_zoh, zoh
from genossm.models.ssm.hippo import nplr, transition
from genossm.models.ssm.init import initial_log_dt, s4d_eigenvalues
from genossm.models.ssm.kernel import dplr_kernel, dplr_step, krylov, real_form, vandermonde

RULES = {"zoh": zoh, "bilinear": bilinear}
SLOWEST = 1e-4
"""The smallest initial decay rate: a normal part on the imaginary axis would never forget."""


def real_pairs(value: Tensor) -> nn.Parameter:
    """A complex tensor as a float32 parameter (..., 2)."""
    return nn.Parameter(torch.view_as_real(value.to(torch.cfloat)).clone())


class _Diagonal(Core):
    """Eigenvalues (rows, pairs), one time step a row, and the skip D of every channel."""

    def __init__(self, config: ModelConfig, eigenvalues: Tensor, log_dt: Tensor, rule: str) -> None:
        super().__init__()
        self.A_log_real = nn.Parameter(torch.log((-eigenvalues.real).clamp(min=SLOWEST)).float())
        self.A_imag = nn.Parameter(eigenvalues.imag.float())
        self.log_dt = nn.Parameter(log_dt)
        self.D = nn.Parameter(torch.ones(config.d_inner))
        self.rule = RULES[rule if config.lti.discretization == "auto" else config.lti.discretization]

    def eigenvalues(self) -> Tensor:
        """Complex, real part negative."""
        return torch.complex(-torch.exp(self.A_log_real), self.A_imag)

    def discrete(self) -> tuple[Tensor, Tensor]:
        """The logarithm of the decay and the factor on the input, complex, in the shape of the eigenvalues."""
        return self.rule(self.eigenvalues(), torch.exp(self.log_dt)[..., None])


def _diagonal_init(config: ModelConfig, auto: str) -> Tensor:
    """Initial eigenvalues (pairs,) of a configuration."""
    kind: Any = auto if config.lti.init == "auto" else config.lti.init
    return s4d_eigenvalues(kind, max(config.d_state // 2, 1))


class DiagonalCore(_Diagonal):
    """S4D and DSS: one diagonal state space a channel.

    State: x, as real and imaginary part, (batch, d_inner, pairs, 2).
    """

    def __init__(self, config: ModelConfig) -> None:
        dss = config.mixer == "dss"
        eigenvalues = _diagonal_init(config, "legs" if dss else "lin").repeat(config.d_inner, 1)
        super().__init__(config, eigenvalues, initial_log_dt(config, config.d_inner), "zoh")
        self.C = real_pairs(torch.randn(*eigenvalues.shape, dtype=torch.cfloat))
        self.length = config.lti.length if dss else None

    def parts(self) -> tuple[Tensor, Tensor]:
        """The logarithm of the decay and C with B in it, complex (d_inner, pairs).

        DSS divides by (exp(lambda dt L) - 1): the softmax over the length L = ``lti.length``, and takes the real part
        over one of each pair, so half of what is doubled later.
        """
        log_decay, factor = self.discrete()
        C = torch.view_as_complex(self.C) * factor
        return log_decay, C if self.length is None else C / (2 * torch.expm1(log_decay * self.length))

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
        entry = None if state is None else torch.view_as_complex(state[0])
        y, last = lti(x, *self.parts(), initial_state=entry, mask=mask, segments=segments, reverse=reverse)
        return y + self.D * x, (torch.view_as_real(last),)

    def init_state(self, batch: int) -> State:
        """Zeros."""
        return (self.C.new_zeros(batch, *self.C.shape),)

    def kernel(self, length: int) -> Tensor:
        """The convolution kernel without the skip, (d_inner, length)."""
        return vandermonde(*self.parts(), length)


class DPLRCore(Core):
    """S4: A = diag(lambda) - P P* in conjugate pairs, bilinear.

    Chunks go through the dense real form of the system, single tokens through a step of O(d_state) operations.
    State: (Re z, Im z), (batch, d_inner, 2 * pairs).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        measure: Any = "legs" if config.lti.init == "auto" else config.lti.init
        form = nplr(measure, 2 * max(config.d_state // 2, 1))
        dim = config.d_inner
        self.A_log_real = nn.Parameter(torch.log((-form.eigenvalues.real).clamp(min=SLOWEST)).float().repeat(dim, 1))
        self.A_imag = nn.Parameter(form.eigenvalues.imag.float().repeat(dim, 1))
        self.P = real_pairs(form.P.expand(dim, -1, -1))
        self.B = real_pairs(form.B.expand(dim, -1))
        self.C = real_pairs(torch.randn(dim, form.B.shape[0], dtype=torch.cfloat))
        self.log_dt = nn.Parameter(initial_log_dt(config, dim))
        self.D = nn.Parameter(torch.ones(dim))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues (d_inner, pairs), P (d_inner, rank, pairs), B (d_inner, pairs), complex."""
        eigenvalues = torch.complex(-torch.exp(self.A_log_real), self.A_imag)
        return eigenvalues, torch.view_as_complex(self.P), torch.view_as_complex(self.B)

    def discrete(self) -> tuple[Tensor, Tensor, Tensor]:
        """A_bar (d_inner, n, n) and B_bar (d_inner, n) in float64, and C (d_inner, n), over the real state."""
        A, B, C = real_form(*self.parts(), torch.view_as_complex(self.C))
        return *dense_gbt(A.double(), B.double(), torch.exp(self.log_dt.double())), C

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
        entry = None if state is None else state[0]
        y, last = dense_lti(x, *self.discrete(), initial_state=entry, mask=mask, segments=segments, reverse=reverse)
        return y + self.D * x, (last,)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """See :class:`Core`; no matrix is formed."""
        z = torch.complex(*state[0].chunk(2, dim=-1))
        z = dplr_step(z, x_t, *self.parts(), torch.exp(self.log_dt))
        y = 2 * (z * torch.view_as_complex(self.C)).sum(-1).real
        return y + self.D * x_t, (torch.cat([z.real, z.imag], dim=-1),)

    def init_state(self, batch: int) -> State:
        """Zeros."""
        dim, pairs = self.A_imag.shape
        return (self.A_imag.new_zeros(batch, dim, 2 * pairs),)

    def kernel(self, length: int) -> Tensor:
        """The convolution kernel without the skip, (d_inner, length), by S4's algorithm."""
        return dplr_kernel(*self.parts(), torch.view_as_complex(self.C), torch.exp(self.log_dt), length)


class DenseCore(Core):
    """LSSL: a full matrix A for all channels, a time step, B and C for each.

    The original gives every channel several outputs and mixes them; here the width of the block does that.
    State: x (batch, d_inner, d_state).
    """

    A: Tensor
    log_dt: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        measure: Any = "legs" if config.lti.init == "auto" else config.lti.init
        A, B = transition(measure, config.d_state)
        log_dt = initial_log_dt(config, config.d_inner)
        if config.mixer == "lssl_fixed":
            self.register_buffer("A", A.float())
            self.register_buffer("log_dt", log_dt)
        else:
            self.A, self.log_dt = nn.Parameter(A.float()), nn.Parameter(log_dt)
        self.B = nn.Parameter(B.float().repeat(config.d_inner, 1))
        self.C = nn.Parameter(torch.randn(config.d_inner, config.d_state))
        self.D = nn.Parameter(torch.ones(config.d_inner))
        self.zoh = config.lti.discretization == "zoh"
        self.alpha = 0.5 if config.lti.gbt_alpha is None else config.lti.gbt_alpha

    def discrete(self) -> tuple[Tensor, Tensor]:
        """A_bar (d_inner, d_state, d_state) and B_bar (d_inner, d_state), float64."""
        A, B, dt = self.A.double().expand(len(self.B), -1, -1), self.B.double(), torch.exp(self.log_dt.double())
        return dense_zoh(A, B, dt) if self.zoh else dense_gbt(A, B, dt, self.alpha)

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
        entry = None if state is None else state[0]
        y, last = dense_lti(
            x, *self.discrete(), self.C, initial_state=entry, mask=mask, segments=segments, reverse=reverse
        )
        return y + self.D * x, (last,)

    def init_state(self, batch: int) -> State:
        """Zeros."""
        return (self.C.new_zeros(batch, *self.C.shape),)

    def kernel(self, length: int) -> Tensor:
        """The convolution kernel without the skip, (d_inner, length)."""
        return krylov(*self.discrete(), self.C.double(), length).to(self.C.dtype)


def mimo(
    u: Tensor, log_decay: Tensor, B_bar: Tensor, C: Tensor, *, initial_state: Tensor | None = None, **where: Any
) -> tuple[Tensor, Tensor]:
    """S5's layer: y = 2 Re C x with x_t = exp(log_decay) x_{t-1} + B_bar u_t, all channels into one state.

    Args:
        u: real (batch, seqlen, channels).
        log_decay: complex (pairs,). B_bar: complex (pairs, channels). C: complex (channels, pairs).
        initial_state: complex (batch, pairs).
        where: mask, segments, reverse.

    Returns:
        y (batch, seqlen, channels) and the last state (batch, pairs).
    """
    into = torch.complex(u @ B_bar.real.mT, u @ B_bar.imag.mT)
    x, last = diagonal_scan(into, log_decay, initial_state=initial_state, **where)
    return 2 * (x.real @ C.real.mT - x.imag @ C.imag.mT), last


class S5Core(_Diagonal):
    """S5: one state for all channels, of d_inner numbers in blocks of d_state, a time step for every pair.

    State: x, as real and imaginary part, (batch, pairs, 2).
    """

    def __init__(self, config: ModelConfig) -> None:
        n = 2 * max(config.d_state // 2, 1)
        blocks = -(-config.d_inner // n)
        kind: Any = "legs" if config.lti.init == "auto" else config.lti.init
        eigenvalues = s4d_eigenvalues(kind, n // 2).repeat(blocks)[:, None]
        super().__init__(config, eigenvalues, initial_log_dt(config, blocks * n // 2), "zoh")
        V = torch.block_diag(*[nplr("legs", n).V] * blocks)
        B = torch.randn(blocks * n, config.d_inner, dtype=torch.float64) / config.d_inner**0.5
        C = torch.randn(config.d_inner, blocks * n, dtype=torch.float64) / (blocks * n) ** 0.5
        self.B, self.C = real_pairs(V.mH @ B.to(V.dtype)), real_pairs(C.to(V.dtype) @ V)

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
        log_decay, factor = self.discrete()
        y, last = mimo(
            x, log_decay[:, 0], torch.view_as_complex(self.B) * factor, torch.view_as_complex(self.C),
            initial_state=None if state is None else torch.view_as_complex(state[0]),
            mask=mask, segments=segments, reverse=reverse,
        )  # fmt: skip
        return y + self.D * x, (torch.view_as_real(last),)

    def init_state(self, batch: int) -> State:
        """Zeros."""
        return (self.B.new_zeros(batch, self.B.shape[0], 2),)


class LiquidCore(_Diagonal):
    """Liquid-S4: S4D with B = 1, whose decay is A_bar + B_bar u_t.

    The input goes through a tanh that keeps |A_bar + B_bar u_t| <= 1, so no input makes the state grow without bound.
    State: h, as real and imaginary part, (batch, d_inner, pairs, 2).
    """

    def __init__(self, config: ModelConfig) -> None:
        eigenvalues = _diagonal_init(config, "legs").repeat(config.d_inner, 1)
        super().__init__(config, eigenvalues, initial_log_dt(config, config.d_inner), "bilinear")
        self.C = real_pairs(torch.randn(*eigenvalues.shape, dtype=torch.cfloat))

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
        log_decay, factor = self.discrete()
        largest = (-torch.expm1(log_decay.real) / factor.abs()).amin(dim=-1)
        y, last = liquid_scan(
            largest * torch.tanh(x / largest), torch.exp(log_decay), factor, torch.view_as_complex(self.C),
            initial_state=None if state is None else torch.view_as_complex(state[0]),
            mask=mask, segments=segments, reverse=reverse,
        )  # fmt: skip
        return y + self.D * x, (torch.view_as_real(last),)

    def init_state(self, batch: int) -> State:
        """Zeros."""
        return (self.C.new_zeros(batch, *self.C.shape),)


CORES: dict[str, type[Core]] = {
    "s4": DPLRCore, "s4d": DiagonalCore, "dss": DiagonalCore, "lssl": DenseCore, "lssl_fixed": DenseCore,
    "s5": S5Core, "liquid_s4": LiquidCore,
}  # fmt: skip


class LTI(GatedMixer):
    """A gated block around one of the cores of this module."""

    @staticmethod
    def build_core(config: ModelConfig) -> Core:
        """The core that the preset names."""
        return CORES[config.mixer](config)
