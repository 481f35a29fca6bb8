"""The selective scan as ``genossm bench kernels`` runs it, with softplus, skip and gate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genossm.kernels.benchmark import D_STATE, DIM, Case, Outputs, Work, layouts, noise
from genossm.kernels.selective_scan import selective_scan
from genossm.kernels.selective_scan.reference import selective_scan_ref


def inputs(seqlen: int) -> dict[str, Tensor]:
    """Time steps between 1e-3 and 1e-1 as a trained model has them, A = -1 .. -16, batch 1."""
    dt_bias = torch.logspace(-3, -1, DIM).expm1().log()
    return {
        "u": noise(1, seqlen, DIM, seed=1),
        "dt": noise(1, seqlen, DIM, seed=2, scale=0.5),
        "A": -torch.arange(1, D_STATE + 1, dtype=torch.float32).repeat(DIM, 1),
        "B": noise(1, seqlen, D_STATE, seed=3),
        "C": noise(1, seqlen, D_STATE, seed=4),
        "D": torch.ones(DIM),
        "z": noise(1, seqlen, DIM, seed=5),
        "dt_bias": dt_bias,
    }


def _run(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, **rest: Any) -> Outputs:
    return selective_scan(u, dt, A, B, C, **rest)


def _reference(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, **rest: Any) -> Outputs:
    return selective_scan_ref(u, dt, A, B, C, **rest)


def forward_work(seqlen: int, dim: int = DIM, d_state: int = D_STATE, *, gate: bool = True) -> Work:
    """A state: delta a, exp, u B, and one multiply-add each for h and y. A channel: softplus, gate, skip."""
    states, channels = seqlen * dim * d_state, seqlen * dim
    inner = Work(4 * states, states)
    # bias, delta u, skip, and log(1 + e): a division and a series of eight; gate: z sigmoid(z), twice a product, a sum
    outer = Work((3 + 11) * channels, channels) + Work(4 * channels, channels) * gate
    return inner + outer + Work(bytes=4 * ((3 + gate) * channels + 2 * seqlen * d_state))


def backward_work(seqlen: int, dim: int = DIM, d_state: int = D_STATE, *, gate: bool = True) -> Work:
    """A state: the forward's four and its exp again, then nine for the adjoint, dA, dB, dC, du and d delta."""
    states, channels = seqlen * dim * d_state, seqlen * dim
    inner = Work((4 + 9) * states, states)
    outer = Work((14 + 8) * channels, 2 * channels) + Work(10 * channels, channels) * gate
    return inner + outer + Work(bytes=4 * ((5 + 2 * gate) * channels + 4 * seqlen * d_state))


def _variants(seqlen: int) -> dict[str, dict[str, Any]]:
    return layouts(seqlen, stateful={"initial_state": noise(1, DIM, D_STATE, seed=6)})


CASE = Case(
    "selective_scan", inputs, _run, _reference, forward_work, backward_work,
    variants=_variants, activations=("u", "dt", "B", "C", "z"),
)  # fmt: skip
