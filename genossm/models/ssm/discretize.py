"""From x' = A x + B u to x_t = A_bar x_{t-1} + B_bar u_t, for diagonal and for dense A.

=====================  ==============================================  ====================================
method                 A_bar                                           B_bar
=====================  ==============================================  ====================================
zero-order hold        exp(dt A)                                       A^-1 (A_bar - I) B
generalised bilinear   (I - alpha dt A)^-1 (I + (1 - alpha) dt A)      (I - alpha dt A)^-1 dt B
=====================  ==============================================  ====================================

alpha is 0 for forward Euler, 1/2 for bilinear (Tustin), 1 for backward Euler. |A_bar| < 1 follows from
Re lambda < 0 for zero-order hold and alpha >= 1/2, not for forward Euler.
"""

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


def bilinear(eigenvalues: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """The bilinear rule for x' = lambda x + u; arguments and results as :func:`zoh`.

    The logarithm of the decay, log (1 + x) - log (1 - x) with x = lambda dt / 2, is taken in double precision: its
    error is multiplied by the length of the kernel.
    """
    half = (eigenvalues * dt).to(torch.complex128) / 2
    log_decay = torch.log1p(half) - torch.log1p(-half)
    return log_decay.to(eigenvalues.dtype), (dt / (1 - half)).to(eigenvalues.dtype)


def dense_gbt(A: Tensor, B: Tensor, dt: Tensor, alpha: float = 0.5) -> tuple[Tensor, Tensor]:
    """The generalised bilinear rule for dense A.

    Args:
        A: (..., n, n).
        B: (..., n).
        dt: (...).
        alpha: 0 to 1, see the module's docstring.

    Returns:
        A_bar (..., n, n) and B_bar (..., n).
    """
    step = dt[..., None, None] * A
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    right = torch.cat([identity + (1 - alpha) * step, (dt[..., None] * B)[..., None]], dim=-1)
    solved = torch.linalg.solve(identity - alpha * step, right)
    return solved[..., :-1], solved[..., -1]


def dense_zoh(A: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Zero-order hold for dense A, singular or not; arguments and results as :func:`dense_gbt`.

    Both come out of one matrix exponential, of [[A, B], [0, 0]] dt.
    """
    n = A.shape[-1]
    B = B.expand(*A.shape[:-2], n)
    both = torch.cat(
        [torch.cat([A, B[..., None]], dim=-1), torch.zeros_like(A[..., :1, :1]).expand(*A.shape[:-2], 1, n + 1)], dim=-2
    )
    solved = torch.linalg.matrix_exp(dt[..., None, None] * both)
    return solved[..., :n, :n], solved[..., :n, n]


def inverse_softplus(value: Tensor) -> Tensor:
    """x with softplus(x) = value, without overflow for large values."""
    return value + torch.log(-torch.expm1(-value))
