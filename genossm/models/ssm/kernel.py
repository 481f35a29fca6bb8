"""The convolution kernel K_l = C A_bar^l B_bar of a linear state space, for each structure of A in its cheapest way.

* any A (:func:`krylov`): powers by doubling, then one product of two thin matrices; O(N^2 sqrt L + N L).
* diagonal A (:func:`vandermonde`): the same in two levels, each power from its exponent.
* diagonal plus low rank (:func:`dplr_kernel`): S4's way (arXiv:2111.00396, section 3 and appendix C), by the truncated
  generating function at the roots of unity; Woodbury's identity turns the inverse into four Cauchy sums.

Powers and inverses are formed in double precision whatever the parameters are; the large sums run in their precision.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NODES = 1 << 14
"""Roots of unity that are in memory at once."""


def krylov(A_bar: Tensor, B_bar: Tensor, C: Tensor, length: int) -> Tensor:
    """K (..., length) for dense A_bar (..., n, n), B_bar (..., n), C (..., n), all of one dtype, real or complex.

    K[b i + j] = (C A_bar^(b i)) (A_bar^j B_bar) with b near sqrt(length).
    """
    dtype = C.dtype
    wide = torch.complex128 if dtype.is_complex else torch.float64
    power, columns, rows = A_bar.to(wide), B_bar.to(wide)[..., None], C.to(wide)[..., None, :]
    doublings = math.ceil(math.log2(length) / 2)
    for _ in range(doublings):
        columns = torch.cat([columns, power @ columns], dim=-1)
        power = power @ power
    while rows.shape[-2] * columns.shape[-1] < length:
        rows = torch.cat([rows, rows @ power], dim=-2)
        power = power @ power
    return (rows.to(dtype) @ columns.to(dtype)).flatten(-2)[..., :length]


def powers(log_A: Tensor, exponents: Tensor) -> Tensor:
    """exp(log_A k) for each exponent k, (..., len(exponents)), in log_A's dtype.

    The phase is formed in double precision and brought into one turn before it is rounded: after 100,000 tokens a
    float32 phase would be off by a hundredth.
    """
    k = exponents.double()
    real, phase = log_A.real.double()[..., None] * k, log_A.imag.double()[..., None] * k
    dtype = log_A.real.dtype
    return torch.polar(torch.exp(real.to(dtype)), torch.remainder(phase, 2 * math.pi).to(dtype))


def vandermonde(log_A: Tensor, C: Tensor, length: int) -> Tensor:
    """K_l = 2 Re sum_n C_n exp(log_A_n l), (dim, length) real, for complex log_A, C (dim, dstate); B is in C."""
    size = 1 << math.ceil(math.log2(length) / 2)
    fine = powers(log_A, torch.arange(size, device=log_A.device))
    coarse = powers(log_A, size * torch.arange(-(-length // size), device=log_A.device))
    coarse = (C[..., None] * coarse).mT
    return 2 * (coarse.real @ fine.real - coarse.imag @ fine.imag).flatten(-2)[..., :length]


def with_conjugates(*values: Tensor) -> list[Tensor]:
    """Each value with its conjugate behind it, along the last axis."""
    return [torch.cat([value, value.conj()], dim=-1) for value in values]


def dplr_bilinear(eigenvalues: Tensor, P: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Dense bilinear A_bar (..., n, n) and B_bar (..., n) of A = diag(eigenvalues) - P^T conj(P), by Woodbury.

    Args:
        eigenvalues: complex (..., n). P: complex (..., rank, n). B: complex (..., n). dt: real (...).
    """
    step = dt[..., None]
    D = 1 / (2 / step - eigenvalues)
    columns, rows = P.mT, P.conj()
    core = torch.eye(P.shape[-2], dtype=P.dtype, device=P.device) + rows @ (D[..., None] * columns)
    forward = torch.diag_embed(2 / step + eigenvalues) - columns @ rows

    def inverse(value: Tensor) -> Tensor:  # of 2 / dt - A
        scaled = D[..., None] * value
        return scaled - D[..., None] * (columns @ torch.linalg.solve(core, rows @ scaled))

    return inverse(forward), inverse(2 * B[..., None])[..., 0]


def dplr_kernel(
    eigenvalues: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int, *, conjugate_pairs: bool = True
) -> Tensor:
    """S4's kernel Re C A_bar^l B_bar, (..., length) real, of A = diag(eigenvalues) - P^T conj(P), bilinear.

    Args:
        eigenvalues, B, C: complex (..., n). P: complex (..., rank, n). dt: real (...).
        length: of the kernel.
        conjugate_pairs: one of each pair is given, the other is understood; else the set is complete as it stands.

    Raises:
        ValueError: an eigenvalue 0, as of HiPPO-FouT: the generating function has a pole at z = 1 there. Move it off
            the axis, as the mixer does, or use :func:`krylov`.
    """
    if (eigenvalues.abs() < 1e-9).any():
        raise ValueError("an eigenvalue is 0: the generating function has a pole at z = 1; use krylov")
    if conjugate_pairs:
        eigenvalues, P, B, C = with_conjugates(eigenvalues, P, B, C)
    wide = [v.to(torch.complex128) for v in (eigenvalues, P, B, C)]
    A_bar, _ = dplr_bilinear(wide[0], wide[1], wide[2], dt.double())
    power = torch.linalg.matrix_power(A_bar, length)
    truncated = wide[3] - (wide[3][..., None, :] @ power)[..., 0, :]
    return generating_kernel(eigenvalues, P, B, truncated.to(C.dtype), dt, length, real=conjugate_pairs)


def generating_kernel(
    eigenvalues: Tensor, P: Tensor, B: Tensor, truncated: Tensor, dt: Tensor, length: int, *, real: bool
) -> Tensor:
    """The kernel whose truncated generating function sum_{l < length} K_l z^l has C (I - A_bar^length) = ``truncated``.

    With s = dt (1 + z) / 2 and D = 1 / ((1 - z) - s lambda), all sums over the states,

        K(z) = dt [k00 - s k01 (1 + s k11)^-1 k10]
        k00 = sum C B D,   k01 = sum C P D,   k10 = sum P* B D,   k11 = sum P* P D

    which is the paper's formula multiplied out, so that nothing is divided by 1 + z. Each root z is computed by itself:
    powers of one root lose three digits in float32.

    Args:
        eigenvalues, B, truncated: complex (..., n). P: complex (..., rank, n). dt: real (...).
        length: of the kernel.
        real: the set is closed under conjugation, so K is real and half of the roots do.
    """
    rank = P.shape[-2]
    left = torch.cat([truncated[..., None, :], P.conj()], dim=-2)
    right = torch.cat([B[..., None, :], P], dim=-2)
    weights = (left[..., :, None, :] * right[..., None, :, :]).flatten(-3, -2)  # (..., (1 + rank)^2, n)
    identity = torch.eye(rank, dtype=P.dtype, device=P.device)
    parts = []
    count = length // 2 + 1 if real else length
    for begin in range(0, count, NODES):
        k = torch.arange(begin, min(begin + NODES, count), device=P.device, dtype=torch.float64)
        z = torch.polar(torch.ones_like(k), -2 * math.pi * k / length)
        one_minus, s = (1 - z).to(P.dtype), (dt[..., None] * (1 + z) / 2).to(P.dtype)
        D = 1 / (one_minus - s[..., None, :] * eigenvalues[..., :, None])
        sums = (weights @ D).unflatten(-2, (1 + rank, 1 + rank)).movedim(-1, -3)  # (..., nodes, 1 + rank, 1 + rank)
        s = s[..., None, None]
        inner = torch.linalg.solve(identity + s * sums[..., 1:, 1:], sums[..., 1:, :1])
        parts.append((sums[..., :1, :1] - s * sums[..., :1, 1:] @ inner)[..., 0, 0] * dt[..., None])
    spectrum = torch.cat(parts, dim=-1)
    return torch.fft.irfft(spectrum, n=length) if real else torch.fft.ifft(spectrum).real


def dplr_step(z: Tensor, u: Tensor, eigenvalues: Tensor, P: Tensor, B: Tensor, dt: Tensor) -> Tensor:
    """One bilinear step of A = diag(eigenvalues) - P^T conj(P) in O(n) operations (S4, theorem 2).

    x' = (2/dt - A)^-1 ((2/dt + A) x + 2 B u), the inverse by Woodbury. One of each conjugate pair is stored, so a sum
    over all states is twice the real part of the sum over these.

    Args:
        z: complex (batch, dim, n), the state.
        u: real (batch, dim), the input.
        eigenvalues, B: complex (dim, n). P: complex (dim, rank, n). dt: real (dim,).

    Returns:
        The state after the step, complex (batch, dim, n).
    """

    def project(value: Tensor) -> Tensor:  # conj(P) . x over all states, (batch, dim, rank)
        return 2 * torch.einsum("drn,bdn->bdr", P.conj(), value).real

    def expand(value: Tensor) -> Tensor:
        return torch.einsum("drn,bdr->bdn", P, value.to(P.dtype))

    step = dt[:, None]
    D = 1 / (2 / step - eigenvalues)
    core = (
        torch.eye(P.shape[1], dtype=dt.dtype, device=dt.device)
        + 2 * torch.einsum("drn,dn,dsn->drs", P.conj(), D, P).real
    )
    value = D * ((2 / step + eigenvalues) * z - expand(project(z)) + 2 * B * u[..., None])
    return value - D * expand(torch.linalg.solve(core, project(value)[..., None])[..., 0])


def real_form(eigenvalues: Tensor, P: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same system over the real state (Re z, Im z): A (..., 2n, 2n), B (..., 2n), C (..., 2n), all real.

    Args:
        eigenvalues, B, C: complex (..., n), one of each conjugate pair. P: complex (..., rank, n).
    """
    real, imag = torch.diag_embed(eigenvalues.real), torch.diag_embed(eigenvalues.imag)
    rotation = torch.cat([torch.cat([real, -imag], dim=-1), torch.cat([imag, real], dim=-1)], dim=-2)
    p = torch.cat([P.real, P.imag], dim=-1)
    return (
        rotation - 2 * p.mT @ p,
        torch.cat([B.real, B.imag], dim=-1),
        2 * torch.cat([C.real, -C.imag], dim=-1),
    )
