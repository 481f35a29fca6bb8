"""State space duality (Mamba-2): a recurrence with one decay a head, as in ``reference.py``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.ssd.chunked import ssd_chunked
from genossm.kernels.ssd.op import ssd_cpu
from genossm.kernels.ssd.reference import ssd_ref
from genossm.kernels.ssd.triton_op import ssd_triton

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": ssd_ref,
    "torch": ssd_chunked,
    "cpu": ssd_cpu,
    "triton": ssd_triton,
}


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = True,
    dt_limit: tuple[float, float] | None = None,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The scan of Mamba-2 along the sequence, in either direction, without a flip of the input.

    Args:
        x: (batch, seqlen, heads, headdim), the input.
        dt: (batch, seqlen, heads), the time step before bias and softplus.
        A: (heads,), not positive; 0 keeps everything (linear attention).
        B, C: (batch, seqlen, groups, dstate); head h belongs to group h // (heads // groups).
        D: (heads,) or (heads, headdim), weight of the skip.
        z: like x, gate: the result is multiplied by silu(z).
        dt_bias: (heads,).
        dt_softplus: pass dt + dt_bias through softplus.
        dt_limit: smallest and largest time step, applied last.
        initial_state: (batch, heads, headdim, dstate); it continues into the first segment in reading order.
        mask: bool (batch, seqlen); a False token leaves the state untouched (its own y means nothing).
        segments: int (batch, seqlen); the state is cleared where the number changes.
        reverse: read from the last token to the first.

    Returns:
        y like x, and the state after the last token read, (batch, heads, headdim, dstate).

    Raises:
        ValueError: shapes that do not fit together.
    """
    if x.dim() != 4 or B.dim() != 4:
        raise ValueError(
            "x must be (batch, seqlen, heads, headdim) and B (batch, seqlen, groups, dstate);"
            f" got {tuple(x.shape)}, {tuple(B.shape)}"
        )
    batch, seqlen, heads, headdim = x.shape
    groups, dstate = B.shape[2:]
    if heads % groups:
        raise ValueError(f"{groups} groups do not divide {heads} heads")
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "dt": (dt, (batch, seqlen, heads)),
        "A": (A, (heads,)),
        "B": (B, (batch, seqlen, groups, dstate)),
        "C": (C, (batch, seqlen, groups, dstate)),
        "D": (D, (heads,) if D is None or D.dim() == 1 else (heads, headdim)),
        "z": (z, (batch, seqlen, heads, headdim)),
        "dt_bias": (dt_bias, (heads,)),
        "initial_state": (initial_state, (batch, heads, headdim, dstate)),
        "mask": (mask, (batch, seqlen)),
        "segments": (segments, (batch, seqlen)),
    }
    for name, (value, shape) in expected.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must be {shape}, is {tuple(value.shape)}")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, is {mask.dtype}")
    run = backend.pick("ssd", BACKENDS, backend.default(x, dt, A, B, C, D, z, dt_bias, initial_state))
    return run(
        x, dt, A, B, C, D=D, z=z, dt_bias=dt_bias, dt_softplus=dt_softplus, dt_limit=dt_limit,
        initial_state=initial_state, mask=mask, segments=segments, reverse=reverse,
    )  # fmt: skip
