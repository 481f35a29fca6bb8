"""HiPPO (arXiv:2008.07669): state spaces whose state is the history, written in orthogonal polynomials.

Matrices as in the official S4 repository (``models/s4/s4.py``, ``src/models/hippo/hippo.py``), all in float64:

* ``legs``: Legendre polynomials over the whole past. S4 uses it without the factor 1/t, which makes the memory
  exponentially warped.
* ``legt``: Legendre polynomials over a sliding window of length 2.
* ``lagt``: Laguerre polynomials, an exponential window.
* ``fout``: Fourier series over a sliding window of length 1.

Each is normal plus low rank (NPLR): A + P P^T = a I + S with S skew-symmetric, so one unitary V gives
A = V (Lambda - (V*P)(V*P)*) V*. Diagonalising A itself would not do: its eigenvectors have condition number 1e20 at
64 states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Measure = Literal["legs", "legt", "lagt", "fout"]


def transition(measure: Measure, n: int) -> tuple[Tensor, Tensor]:
    """A (n, n) and B (n,) of x' = A x + B u, float64.

    Raises:
        ValueError: an odd n for ``fout``, whose states come in pairs.
    """
    k = torch.arange(n, dtype=torch.float64)
    root = torch.sqrt(2 * k + 1)
    if measure == "legs":
        return -(torch.outer(root, root).tril(-1) + torch.diag(k + 1)), root
    if measure == "legt":
        sign = torch.where(k[:, None] < k, (-1.0) ** (k[:, None] - k), 1.0)
        return -torch.outer(root, root) * sign / 2, root / 2
    if measure == "lagt":
        return torch.eye(n, dtype=torch.float64) / 2 - torch.ones(n, n, dtype=torch.float64).tril(), torch.ones_like(k)
    if n % 2:
        raise ValueError(f"the states of fout come in pairs: {n} is odd")
    frequency = torch.zeros(n - 1, dtype=torch.float64)
    frequency[::2] = k[: n // 2]
    B = torch.zeros_like(k)
    B[::2] = math.sqrt(2)
    B[0] = 1
    return math.pi * (torch.diag(frequency, -1) - torch.diag(frequency, 1)) - torch.outer(B, B), B


def low_rank(measure: Measure, n: int) -> Tensor:
    """P (rank, n), float64: A + P^T P is a multiple of the identity plus a skew-symmetric matrix. Rank 2 for legt."""
    k = torch.arange(n, dtype=torch.float64)
    if measure == "legs":
        return torch.sqrt(k + 0.5)[None]
    if measure == "legt":
        return torch.stack([torch.where(k % 2 == parity, torch.sqrt(k + 0.5), 0) for parity in (0, 1)])
    if measure == "lagt":
        return torch.full((1, n), math.sqrt(0.5), dtype=torch.float64)
    return transition(measure, n)[1][None]


@dataclass(frozen=True)
class NPLR:
    """A state space in the basis of its normal part; one of each conjugate pair, n even.

    Attributes:
        eigenvalues: complex128 (n/2,), imaginary part not negative.
        P: complex128 (rank, n/2). B: complex128 (n/2,).
        V: complex128 (n, n/2), orthonormal columns; x = 2 Re V z for a real state x.
    """

    eigenvalues: Tensor
    P: Tensor
    B: Tensor
    V: Tensor


def nplr(measure: Measure, n: int) -> NPLR:
    """The normal-plus-low-rank form.

    Raises:
        ValueError: n is odd.
    """
    if n % 2:
        raise ValueError(f"conjugate pairs need an even number of states, not {n}")
    A, B = transition(measure, n)
    P = low_rank(measure, n)
    normal = A + P.T @ P
    shift = normal.diagonal().mean()
    skew = (normal - normal.T) / 2
    frequency, V = torch.linalg.eigh(-1j * skew)
    # A zero frequency has real eigenvectors, two or none (n is even): any pair (a, b) of them gives a +- ib.
    zero = frequency.abs() < 1e-9 * max(frequency.abs().max().item(), 1)
    frequency, V = frequency[n // 2 :], V[:, n // 2 :].clone()
    pairs = int(zero.sum()) // 2
    if pairs:
        kernel = torch.linalg.svd(skew).Vh[n - 2 * pairs :].T
        V[:, :pairs] = torch.complex(kernel[:, :pairs], kernel[:, pairs:]) / math.sqrt(2)
    return NPLR(torch.complex(shift.expand(n // 2), frequency), (V.mH @ P.T.to(V.dtype)).T, V.mH @ B.to(V.dtype), V)
