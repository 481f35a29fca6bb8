"""Selective scan (Mamba-1): the input-dependent diagonal recurrence of ``reference.py``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.selective_scan.blocked import selective_scan_blocked
from genossm.kernels.selective_scan.op import selective_scan_cpu
from genossm.kernels.selective_scan.reference import selective_scan_ref
from genossm.kernels.selective_scan.triton_op import selective_scan_triton

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": selective_scan_ref,
    "torch": selective_scan_blocked,
    "cpu": selective_scan_cpu,
    "triton": selective_scan_triton,
}


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = True,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Selective scan of Mamba-1 along the sequence, in either direction, without a flip of the input.

    Args:
        u: (batch, seqlen, dim), the input.
        dt: (batch, seqlen, dim), the time step before bias and softplus.
        A: (dim, dstate), negative.
        B, C: (batch, seqlen, dstate).
        D: (dim,), weight of the skip.
        z: (batch, seqlen, dim), gate: the result is multiplied by silu(z).
        dt_bias: (dim,).
        dt_softplus: pass dt + dt_bias through softplus.
        initial_state: (batch, dim, dstate); it continues into the first segment in reading order.
        mask: bool (batch, seqlen); a False token leaves the state untouched (its own y means nothing).
        segments: int (batch, seqlen); the state is cleared where the number changes.
        reverse: read from the last token to the first.

    Returns:
        y (batch, seqlen, dim) in u's dtype, and the state after the last token read, (batch, dim, dstate).

    Raises:
        ValueError: shapes that do not fit together.
    """
    _check(u, dt, A, B, C, D, z, dt_bias, initial_state, mask, segments)
    run = backend.pick("selective_scan", BACKENDS, backend.default(u, dt, A, B, C, D, z, dt_bias, initial_state))
    return run(
        u, dt, A, B, C, D=D, z=z, dt_bias=dt_bias, dt_softplus=dt_softplus,
        initial_state=initial_state, mask=mask, segments=segments, reverse=reverse,
    )  # fmt: skip


def _check(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    mask: Tensor | None,
    segments: Tensor | None,
) -> None:
    if u.dim() != 3 or A.dim() != 2:
        raise ValueError(f"u must be (batch, seqlen, dim) and A (dim, dstate); got {tuple(u.shape)}, {tuple(A.shape)}")
    batch, seqlen, dim = u.shape
    dstate = A.shape[1]
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "dt": (dt, (batch, seqlen, dim)),
        "A": (A, (dim, dstate)),
        "B": (B, (batch, seqlen, dstate)),
        "C": (C, (batch, seqlen, dstate)),
        "D": (D, (dim,)),
        "z": (z, (batch, seqlen, dim)),
        "dt_bias": (dt_bias, (dim,)),
        "initial_state": (initial_state, (batch, dim, dstate)),
        "mask": (mask, (batch, seqlen)),
        "segments": (segments, (batch, seqlen)),
    }
    for name, (value, shape) in expected.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must be {shape}, is {tuple(value.shape)}")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, is {mask.dtype}")
