"""RMSNorm with its residual as ``genossm bench kernels`` runs it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from genossm.kernels.benchmark import D_MODEL, Case, Entrant, Outputs, Work, noise, same_inputs
from genossm.kernels.rms_norm import rms_norm
from genossm.kernels.rms_norm.reference import rms_norm_ref


def inputs(seqlen: int) -> dict[str, Tensor]:
    """x and residual (1, seqlen, D_MODEL), weight."""
    return {
        "x": noise(1, seqlen, D_MODEL, seed=1),
        "residual": noise(1, seqlen, D_MODEL, seed=2),
        "weight": 1 + noise(D_MODEL, seed=3, scale=0.1),
    }


def _run(x: Tensor, residual: Tensor, weight: Tensor) -> Outputs:
    return rms_norm(x, weight, residual=residual)


def _reference(x: Tensor, residual: Tensor, weight: Tensor) -> Outputs:
    return rms_norm_ref(x, weight, residual=residual)


def _torch(x: Tensor, residual: Tensor, weight: Tensor) -> Outputs:
    total = x + residual
    return F.rms_norm(total, weight.shape, weight, 1e-5), total


def forward_work(seqlen: int, dim: int = D_MODEL) -> Work:
    """Sum, square, scale and weight; two tensors in, two out."""
    return Work(4 * seqlen * dim, 0, 4 * 4 * seqlen * dim)


def backward_work(seqlen: int, dim: int = D_MODEL) -> Work:
    """The sum and two gradients in, one gradient out that both inputs share."""
    return Work(8 * seqlen * dim, 0, 4 * 4 * seqlen * dim)


CASE = Case(
    "rms_norm", inputs, _run, _reference, forward_work, backward_work,
    activations=("x", "residual"), entrants=(Entrant("torch rms_norm", same_inputs(inputs, _torch)),),
)  # fmt: skip
