"""The scan of Mamba-2 as ``genossm bench kernels`` runs it: 8 heads of 64 channels, one group, skip and softplus."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genossm.kernels.benchmark import D_STATE, DIM, Case, Entrant, Outputs, Problem, Work, layouts, noise
from genossm.kernels.ssd import ssd
from genossm.kernels.ssd.reference import ssd_ref

HEADDIM = 64
HEADS = DIM // HEADDIM


def inputs(seqlen: int) -> dict[str, Tensor]:
    """Time steps between 1e-3 and 1e-1, A = -1 .. -16."""
    return {
        "x": noise(1, seqlen, HEADS, HEADDIM, seed=1),
        "dt": noise(1, seqlen, HEADS, seed=2, scale=0.5),
        "A": -torch.linspace(1, 16, HEADS),
        "B": noise(1, seqlen, 1, D_STATE, seed=3),
        "C": noise(1, seqlen, 1, D_STATE, seed=4),
        "D": torch.ones(HEADS),
        "dt_bias": torch.logspace(-3, -1, HEADS).expm1().log(),
    }


def _run(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, **rest: Any) -> Outputs:
    return ssd(x, dt, A, B, C, **rest)


def _reference(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, **rest: Any) -> Outputs:
    return ssd_ref(x, dt, A, B, C, **rest)


def _fla(seqlen: int, device: torch.device) -> Problem:
    """flash-linear-attention's chunked kernel for one decay a head, given delta and the decay."""
    from fla.ops.simple_gla import chunk_simple_gla

    given = {name: value.to(device) for name, value in inputs(seqlen).items()}
    delta = torch.nn.functional.softplus(given["dt"] + given["dt_bias"])
    q, k = (given[name].expand(-1, -1, HEADS, -1).contiguous().requires_grad_() for name in ("C", "B"))
    v = (given["x"] * delta[..., None]).requires_grad_()
    decay = (delta * given["A"]).requires_grad_()
    return Problem(lambda: chunk_simple_gla(q, k, v, g=decay, scale=1.0)[0], (q, k, v, decay))


def forward_work(seqlen: int, dim: int = DIM, d_state: int = D_STATE) -> Work:
    """A state: the decay, the inflow and y; a channel: delta x and the skip; a head: softplus and an exponential."""
    channels, heads = seqlen * dim, seqlen * dim // HEADDIM
    return Work(
        3 * channels * d_state + 2 * channels + 14 * heads,
        2 * heads,
        4 * (2 * channels + heads + 2 * seqlen * d_state),
    )


def backward_work(seqlen: int, dim: int = DIM, d_state: int = D_STATE) -> Work:
    """A state: again (2), the adjoint (2), gradients of x, B, C and the decay (4)."""
    channels, heads = seqlen * dim, seqlen * dim // HEADDIM
    return Work(
        8 * channels * d_state + 5 * channels + 20 * heads,
        3 * heads,
        4 * (3 * channels + 2 * heads + 4 * seqlen * d_state),
    )


def _variants(seqlen: int) -> dict[str, dict[str, Any]]:
    return layouts(seqlen, stateful={"initial_state": noise(1, HEADS, HEADDIM, D_STATE, seed=5)})


CASE = Case(
    "ssd", inputs, _run, _reference, forward_work, backward_work, variants=_variants,
    activations=("x", "dt", "B", "C"), entrants=(Entrant("fla simple_gla", _fla, device="cuda"),),
)  # fmt: skip
