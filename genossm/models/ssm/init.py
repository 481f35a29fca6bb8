"""Where a state space starts: time steps and eigenvalues."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from genossm.config import ModelConfig
from genossm.models.ssm.hippo import nplr

S4DInit = Literal["lin", "inv", "legs", "real"]


def log_uniform_dt(dim: int, dt_min: float, dt_max: float) -> Tensor:
    """Time steps (dim,), log-uniform between dt_min and dt_max (S4, arXiv:2111.00396, appendix).

    A channel with time step dt and decay rate a remembers about 1 / (a dt) bp, so dt_min sets the longest memory:
    near 1 / seqlen it spans the window.
    """
    return torch.exp(torch.rand(dim) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min))


def initial_log_dt(config: ModelConfig, count: int) -> Tensor:
    """log dt (count,) of a configuration, float32."""
    return torch.log(log_uniform_dt(count, config.initial_dt_min, config.dt_max))


def s4d_eigenvalues(kind: S4DInit, n: int) -> Tensor:
    """n eigenvalues with positive imaginary part (for ``real``: none), complex128 (n,).

    S4D (arXiv:2206.11893), section 4: ``lin`` -1/2 + i pi k; ``inv`` -1/2 + i (2n/pi)(2n/(2k+1) - 1); ``legs`` the
    spectrum of the normal part of HiPPO-LegS of size 2n; ``real`` -(k + 1).
    """
    k = torch.arange(n, dtype=torch.float64)
    if kind == "real":
        return torch.complex(-(k + 1), torch.zeros_like(k))
    if kind == "lin":
        imaginary = math.pi * k
    elif kind == "inv":
        imaginary = 2 * n / math.pi * (2 * n / (2 * k + 1) - 1)
    else:
        imaginary = nplr("legs", 2 * n).eigenvalues.imag
    return torch.complex(torch.full_like(k, -0.5), imaginary)
