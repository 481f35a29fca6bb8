"""The short convolution as ``genossm bench kernels`` runs it: four taps, bias and SiLU."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from genossm.kernels.benchmark import DIM, Case, Entrant, Outputs, Work, layouts, noise, same_inputs
from genossm.kernels.causal_conv1d import causal_conv1d
from genossm.kernels.causal_conv1d.reference import causal_conv1d_ref

WIDTH = 4


def inputs(seqlen: int) -> dict[str, Tensor]:
    """x (1, seqlen, DIM), weight and bias."""
    return {
        "x": noise(1, seqlen, DIM, seed=1),
        "weight": noise(DIM, WIDTH, seed=2, scale=WIDTH**-0.5),
        "bias": noise(DIM, seed=3, scale=0.1),
    }


def _run(x: Tensor, weight: Tensor, bias: Tensor, **where: Any) -> Outputs:
    return causal_conv1d(x, weight, bias, **where)


def _reference(x: Tensor, weight: Tensor, bias: Tensor, **where: Any) -> Outputs:
    return causal_conv1d_ref(x, weight, bias, **where)


def _torch(x: Tensor, weight: Tensor, bias: Tensor) -> Outputs:
    """The usual composition: channels first, padded, then SiLU."""
    y = F.conv1d(x.mT, weight[:, None], bias, padding=WIDTH - 1, groups=x.shape[2])[..., : x.shape[1]]
    return F.silu(y).mT


def forward_work(seqlen: int, dim: int = DIM) -> Work:
    """A multiply-add a tap; SiLU: an exponential, a sum, a division, two products."""
    return Work((WIDTH + 4) * seqlen * dim, seqlen * dim, 4 * 2 * seqlen * dim)


def backward_work(seqlen: int, dim: int = DIM) -> Work:
    """The taps three times (again, dx, dweight), SiLU's slope."""
    return Work((3 * WIDTH + 8) * seqlen * dim, seqlen * dim, 4 * 3 * seqlen * dim)


def _variants(seqlen: int) -> dict[str, dict[str, Any]]:
    return layouts(seqlen, stateful={"initial_taps": noise(1, WIDTH - 1, DIM, seed=4)})


CASE = Case(
    "causal_conv1d", inputs, _run, _reference, forward_work, backward_work,
    variants=_variants, activations=("x",), entrants=(Entrant("torch conv1d + silu", same_inputs(inputs, _torch)),),
)  # fmt: skip
