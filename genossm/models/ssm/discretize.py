"""From a continuous state space to a step: zero-order hold of a diagonal system."""

from __future__ import annotations

import torch
from torch import Tensor


def zoh(eigenvalues: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Zero-order hold of x' = lambda x + u, u held over a step.

    Args:
        eigenvalues: complex (dim, dstate), lambda, not zero.
        dt: real (dim, 1).

    Returns:
        lambda * dt, whose exponential is the discrete decay, and the factor (exp(lambda dt) - 1) / lambda on the
        input. The factor comes from ``expm1``: the plain difference loses all digits of float32 near dt = 1e-6.
    """
    scaled = eigenvalues * dt
    return scaled, torch.expm1(scaled) / eigenvalues


def inverse_softplus(value: Tensor) -> Tensor:
    """x with softplus(x) = value, without overflow for large values."""
    return value + torch.log(-torch.expm1(-value))
