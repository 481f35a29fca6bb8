"""RWKV-4's exponentially weighted average of values."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.wkv.lanes import wkv_lanes
from genossm.kernels.wkv.reference import EMPTY, Triple, wkv_ref

__all__ = ["BACKENDS", "EMPTY", "Triple", "wkv", "wkv_lanes", "wkv_ref"]

BACKENDS: dict[str, Callable[..., tuple[Tensor, Triple]]] = {"reference": wkv_ref, "torch": wkv_lanes}


def wkv(
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    *,
    initial_state: Triple | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Triple]:
    """Average of the values so far, weighted by e^key and by age, along the sequence, in either direction.

    Args:
        k, v: (batch, seqlen, dim).
        w: (dim,), logarithm of the decay, negative.
        u: (dim,), added to the key of the present token.
        initial_state: numerator and denominator over e^max, and max, (batch, dim) each; it continues into the first
            segment in reading order.
        mask: bool (batch, seqlen); a False token leaves the state untouched (its own y means nothing).
        segments: int (batch, seqlen); the state is emptied where the number changes.
        reverse: read from the last token to the first.

    Returns:
        y (batch, seqlen, dim), and the state after the last token read.

    Raises:
        ValueError: shapes that do not fit together.
    """
    batch, seqlen, dim = k.shape
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "v": (v, (batch, seqlen, dim)),
        "w": (w, (dim,)),
        "u": (u, (dim,)),
        "mask": (mask, (batch, seqlen)),
        "segments": (segments, (batch, seqlen)),
    }
    for name, part in zip(("num", "den", "max"), initial_state or (), strict=False):
        wanted[f"initial_state: {name}"] = (part, (batch, dim))
    for name, (value, shape) in wanted.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must be {shape}, is {tuple(value.shape)}")
    run = backend.pick("wkv", BACKENDS, "torch")
    return run(k, v, w, u, initial_state=initial_state, mask=mask, segments=segments, reverse=reverse)
