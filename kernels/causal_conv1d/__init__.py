"""Depthwise causal convolution of a few taps with SiLU: the short memory in front of a selective scan."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.causal_conv1d.op import causal_conv1d_cpu
from genossm.kernels.causal_conv1d.reference import causal_conv1d_ref
from genossm.kernels.causal_conv1d.triton_op import causal_conv1d_triton

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": causal_conv1d_ref,
    "torch": causal_conv1d_ref,
    "cpu": causal_conv1d_cpu,
    "triton": causal_conv1d_triton,
}


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    silu: bool = True,
    initial_taps: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Depthwise causal convolution along the sequence, in either direction, without a flip of the input.

    Args:
        x: (batch, seqlen, dim).
        weight: (dim, width); weight[:, width-1] meets the token itself.
        bias: (dim,).
        silu: apply SiLU to the result.
        initial_taps: (batch, width-1, dim), the inputs just before the first token read, in sequence order.
        mask: bool (batch, seqlen); a False token counts as zero and is not carried.
        segments: int (batch, seqlen); taps do not reach into another segment.
        reverse: read from the last token to the first.

    Returns:
        y (batch, seqlen, dim), and the taps to carry into the next chunk, (batch, width-1, dim).

    Raises:
        ValueError: shapes that do not fit together.
    """
    batch, seqlen, dim = x.shape
    if weight.dim() != 2 or weight.shape[0] != dim:
        raise ValueError(f"weight must be ({dim}, width), is {tuple(weight.shape)}")
    wanted = {
        "bias": (bias, (dim,)),
        "initial_taps": (initial_taps, (batch, weight.shape[1] - 1, dim)),
        "mask": (mask, (batch, seqlen)),
        "segments": (segments, (batch, seqlen)),
    }
    for name, (value, shape) in wanted.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must be {shape}, is {tuple(value.shape)}")
    run = backend.pick("causal_conv1d", BACKENDS, backend.default(x, weight, bias, initial_taps))
    return run(x, weight, bias, silu=silu, initial_taps=initial_taps, mask=mask, segments=segments, reverse=reverse)
