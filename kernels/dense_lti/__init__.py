"""Linear time-invariant state space with a full matrix a channel (S4, LSSL); the diagonal case is ``kernels/lti``."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.dense_lti.blocked import dense_lti_blocked
from genossm.kernels.dense_lti.reference import dense_lti_ref

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"reference": dense_lti_ref, "torch": dense_lti_blocked}


def dense_lti(
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
    """y_t = C x_t with x_t = A_bar x_{t-1} + B_bar u_t, along the sequence, in either direction.

    Args:
        u: real (batch, seqlen, dim).
        A_bar: real (dim, n, n), the discrete matrix of every channel; any float dtype, double keeps most digits.
        B_bar, C: real (dim, n).
        initial_state: real (batch, dim, n); it continues into the first segment in reading order.
        mask: bool (batch, seqlen); a False token leaves the state untouched (its own y means nothing).
        segments: int (batch, seqlen); the state is cleared where the number changes.
        reverse: read from the last token to the first.

    Returns:
        y (batch, seqlen, dim) in u's dtype, and the state after the last token read, (batch, dim, n).

    Raises:
        ValueError: shapes that do not fit together.
    """
    batch, seqlen, dim = u.shape
    n = A_bar.shape[-1]
    wanted = {
        "A_bar": (A_bar, (dim, n, n)),
        "B_bar": (B_bar, (dim, n)),
        "C": (C, (dim, n)),
        "initial_state": (initial_state, (batch, dim, n)),
        "mask": (mask, (batch, seqlen)),
        "segments": (segments, (batch, seqlen)),
    }
    for name, (value, shape) in wanted.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must be {shape}, is {tuple(value.shape)}")
    run = backend.pick("dense_lti", BACKENDS, "torch")
    return run(u, A_bar, B_bar, C, initial_state=initial_state, mask=mask, segments=segments, reverse=reverse)
