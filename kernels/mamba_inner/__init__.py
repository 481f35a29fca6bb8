"""The inside of a Mamba block, between its two projections: one direction or both, gated once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.mamba_inner.fused import fits, mamba_inner_fused
from genossm.kernels.mamba_inner.reference import Direction, mamba_inner_ref

__all__ = ["Direction", "mamba_inner"]

Result = tuple[Tensor, list[tuple[Tensor, Tensor]]]
BACKENDS: dict[str, Callable[..., Result]] = {
    "reference": mamba_inner_ref,
    "torch": mamba_inner_ref,
    "cpu": mamba_inner_fused,
    "triton": mamba_inner_ref,
}


def mamba_inner(
    xz: Tensor, directions: Sequence[Direction], *, mask: Tensor | None = None, segments: Tensor | None = None
) -> Result:
    """Convolution, projections and scan of every direction, their sum, and the gate.

    On a CPU in float32 it is one operator: the input is read by both directions without a copy or a flip, and backward
    computes the convolution and the time steps again. Elsewhere the operators run one after the other.

    Args:
        xz: (batch, seqlen, 2 * d_inner), what ``in_proj`` gives: the input and the gate.
        directions: the parameters of each core, and what it carries in.
        mask: bool (batch, seqlen), False at padding.
        segments: int (batch, seqlen), packed sequences.

    Returns:
        y (batch, seqlen, d_inner), for ``out_proj``; and for each direction the taps (batch, d_conv - 1, d_inner) and
        the state (batch, d_inner, d_state) after the last token read.

    Raises:
        ValueError: shapes that do not fit together.
    """
    batch, seqlen, width = xz.shape
    for direction in directions:
        if 2 * direction.conv_weight.shape[0] != width:
            raise ValueError(f"xz must have {2 * direction.conv_weight.shape[0]} columns, has {width}")
    for name, value in {"mask": mask, "segments": segments}.items():
        if value is not None and tuple(value.shape) != (batch, seqlen):
            raise ValueError(f"{name} must be {(batch, seqlen)}, is {tuple(value.shape)}")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, is {mask.dtype}")
    chosen = "cpu" if fits(xz, directions) else "torch"  # which of the two a single operator's backends add up to
    run = backend.pick("mamba_inner", {**BACKENDS, "cpu": BACKENDS[chosen]}, chosen)
    return run(xz, directions, mask=mask, segments=segments)
