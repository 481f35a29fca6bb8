"""Causal convolution with a filter as long as the sequence (Hyena, S4 as a convolution)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.long_conv.fft import long_conv_fft
from genossm.kernels.long_conv.reference import long_conv_ref

BACKENDS: dict[str, Callable[..., Tensor]] = {"reference": long_conv_ref, "torch": long_conv_fft}


def long_conv(
    u: Tensor,
    k: Tensor,
    D: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """Depthwise causal convolution along the sequence, in either direction. It has no state to hand on.

    Args:
        u: (batch, seqlen, dim).
        k: (dim, taps), the filter; taps beyond the sequence do nothing, beyond the filter there is nothing.
        D: (dim,), weight of the skip.
        mask: bool (batch, seqlen); a False token counts as absent (its own y means nothing).
        segments: int (batch, seqlen); the filter does not reach into another segment.
        reverse: read from the last token to the first.

    Returns:
        y (batch, seqlen, dim).

    Raises:
        ValueError: shapes that do not fit together.
    """
    batch, seqlen, dim = u.shape
    wanted = {
        "k": (k, (dim, k.shape[-1])),
        "D": (D, (dim,)),
        "mask": (mask, (batch, seqlen)),
        "segments": (segments, (batch, seqlen)),
    }
    for name, (value, shape) in wanted.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must be {shape}, is {tuple(value.shape)}")
    return backend.pick("long_conv", BACKENDS, "torch")(u, k, D, mask=mask, segments=segments, reverse=reverse)
