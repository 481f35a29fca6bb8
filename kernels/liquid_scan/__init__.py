"""Liquid-S4: a diagonal state space whose decay depends on the input."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.liquid_scan.blocked import liquid_scan_blocked
from genossm.kernels.liquid_scan.reference import liquid_scan_ref

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": liquid_scan_ref,
    "torch": liquid_scan_blocked,
}


def liquid_scan(
    u: Tensor,
    A_bar: Tensor,
    B_bar: Tensor,
    C: Tensor,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """y_t = 2 Re C . h_t with h_t = (A_bar + B_bar u_t) h_{t-1} + B_bar u_t, in either direction.

    Args:
        u: real (batch, seqlen, dim).
        A_bar, B_bar, C: complex (dim, dstate), one of each conjugate pair.
        initial_state: complex (batch, dim, dstate); it continues into the first segment in reading order.
        mask: bool (batch, seqlen); a False token leaves the state untouched (its own y means nothing).
        segments: int (batch, seqlen); the state is cleared where the number changes.
        reverse: read from the last token to the first.

    Returns:
        y, real (batch, seqlen, dim), and the state after the last token read, complex (batch, dim, dstate).

    Raises:
        ValueError: shapes that do not fit together.
    """
    batch, seqlen, dim = u.shape
    n = A_bar.shape[-1]
    wanted = {
        "A_bar": (A_bar, (dim, n)),
        "B_bar": (B_bar, (dim, n)),
        "C": (C, (dim, n)),
        "initial_state": (initial_state, (batch, dim, n)),
        "mask": (mask, (batch, seqlen)),
        "segments": (segments, (batch, seqlen)),
    }
    for name, (value, shape) in wanted.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must be {shape}, is {tuple(value.shape)}")
    run = backend.pick("liquid_scan", BACKENDS, "torch")
    return run(u, A_bar, B_bar, C, initial_state=initial_state, mask=mask, segments=segments, reverse=reverse)
