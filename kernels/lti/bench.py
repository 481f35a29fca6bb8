"""The diagonal state space (S4D) as ``genossm bench kernels`` runs it: 256 channels, 32 conjugate pairs each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genossm.kernels.benchmark import D_MODEL, Case, Entrant, Outputs, Work, layouts, noise, same_inputs
from genossm.kernels.long_conv import long_conv
from genossm.kernels.lti import lti
from genossm.kernels.lti.reference import lti_ref

PAIRS = 32
TERMS = 1 << 28
"""Complex exponentials that the usual generation may hold at a time: 2 GiB."""


def inputs(seqlen: int) -> dict[str, Tensor]:
    """u (1, seqlen, D_MODEL) and S4D-Lin (arXiv:2206.11893): lambda = -1/2 + i pi n, held over dt from 1e-3 to 1e-1."""
    dt = torch.logspace(-3, -1, D_MODEL, dtype=torch.float64)
    eigenvalues = torch.complex(torch.full((PAIRS,), -0.5).double(), math.pi * torch.arange(PAIRS).double())
    lam = dt[:, None] * eigenvalues
    weights = torch.complex(noise(D_MODEL, PAIRS, seed=2), noise(D_MODEL, PAIRS, seed=3))
    C = weights * torch.expm1(lam) / eigenvalues
    return {"u": noise(1, seqlen, D_MODEL, seed=1), "lam": lam.to(torch.complex64), "C": C.to(torch.complex64)}


def _run(u: Tensor, lam: Tensor, C: Tensor, **where: Any) -> Outputs:
    return lti(u, lam, C, **where)


def _reference(u: Tensor, lam: Tensor, C: Tensor, **where: Any) -> Outputs:
    return lti_ref(u, lam, C, **where)


def kernel_usual(lam: Tensor, C: Tensor, seqlen: int) -> Tensor:
    """K_l = 2 Re sum_n C_n exp(lam_n l), (dim, seqlen), a complex exponential for every n and l, channels in blocks."""
    steps = torch.arange(seqlen, device=lam.device)
    block = max(1, TERMS // (lam.shape[1] * seqlen))
    parts = [
        torch.einsum("dn,dnl->dl", C[i : i + block], torch.exp(lam[i : i + block, :, None] * steps)).real
        for i in range(0, lam.shape[0], block)
    ]
    return 2 * torch.cat(parts)


def kernel_two_level(lam: Tensor, C: Tensor, seqlen: int) -> Tensor:
    """The same from about 2 sqrt(seqlen) exponentials a pair: l = b i + j, exp(lam b i) exp(lam j), one product."""
    size = 1 << math.ceil(math.log2(seqlen) / 2)

    def powers(exponents: Tensor) -> Tensor:
        phase = torch.remainder(lam.imag.double()[..., None] * exponents, 2 * math.pi)
        return torch.polar(torch.exp(lam.real.double()[..., None] * exponents).float(), phase.float())

    fine = powers(torch.arange(size, device=lam.device))
    coarse = (C[..., None] * powers(size * torch.arange(-(-seqlen // size), device=lam.device))).mT
    return 2 * (coarse.real @ fine.real - coarse.imag @ fine.imag).flatten(-2)[:, :seqlen]


def _convolved(kernel: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[..., Outputs]:
    return lambda u, lam, C: long_conv(u, kernel(lam, C, u.shape[1]))


def _alone(kernel: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[..., Outputs]:
    return lambda u, lam, C: kernel(lam, C, u.shape[1])


def forward_work(seqlen: int, dim: int = D_MODEL) -> Work:
    """A pair: a complex product and a sum (4), the real part of another product (2)."""
    return Work(6 * seqlen * dim * PAIRS, 0, 4 * 2 * seqlen * dim)


def backward_work(seqlen: int, dim: int = D_MODEL) -> Work:
    """A pair: the state again (4), the adjoint (6), gradients of C, lam and u (2 + 4 + 1)."""
    return Work(17 * seqlen * dim * PAIRS, 0, 4 * 3 * seqlen * dim)


def _variants(seqlen: int) -> dict[str, dict[str, Any]]:
    state = torch.complex(noise(1, D_MODEL, PAIRS, seed=4), noise(1, D_MODEL, PAIRS, seed=5))
    return layouts(seqlen, stateful={"initial_state": state})


_WAYS = {
    "kernel + FFT": _convolved(kernel_usual),
    "kernel alone": _alone(kernel_usual),
    "two-level kernel + FFT": _convolved(kernel_two_level),
    "two-level kernel alone": _alone(kernel_two_level),
}

CASE = Case(
    "lti", inputs, _run, _reference, forward_work, backward_work, variants=_variants, activations=("u",),
    entrants=tuple(Entrant(name, same_inputs(inputs, run), passes=("forward",)) for name, run in _WAYS.items()),
)  # fmt: skip
