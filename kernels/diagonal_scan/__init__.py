"""Diagonal linear recurrence with constant decays and all of its states (S5)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.diagonal_scan.blocked import diagonal_scan_blocked
from genossm.kernels.diagonal_scan.reference import diagonal_scan_ref

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": diagonal_scan_ref,
    "torch": diagonal_scan_blocked,
}


def diagonal_scan(
    x: Tensor,
    log_a: Tensor,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(log_a) h_{t-1} + x_t along the sequence, in either direction.

    Args:
        x: real or complex (batch, seqlen, dim).
        log_a: (dim,) of x's dtype, real part not positive.
        initial_state: (batch, dim) of x's dtype; it continues into the first segment in reading order.
        mask: bool (batch, seqlen); a False token leaves the state untouched (its own h means nothing).
        segments: int (batch, seqlen); the state is cleared where the number changes.
        reverse: read from the last token to the first.

    Returns:
        h (batch, seqlen, dim), and the state after the last token read, (batch, dim).

    Raises:
        ValueError: shapes that do not fit together.
    """
    batch, seqlen, dim = x.shape
    wanted = {
        "log_a": (log_a, (dim,)),
        "initial_state": (initial_state, (batch, dim)),
        "mask": (mask, (batch, seqlen)),
        "segments": (segments, (batch, seqlen)),
    }
    for name, (value, shape) in wanted.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must be {shape}, is {tuple(value.shape)}")
    run = backend.pick("diagonal_scan", BACKENDS, "torch")
    return run(x, log_a, initial_state=initial_state, mask=mask, segments=segments, reverse=reverse)
