"""Diagonal linear time-invariant state space (S4D): a long convolution with a state that can be carried."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.lti.blocked import lti_blocked
from genossm.kernels.lti.op import lti_cpu
from genossm.kernels.lti.reference import lti_ref
from genossm.kernels.lti.triton_op import lti_triton

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": lti_ref,
    "torch": lti_blocked,
    "cpu": lti_cpu,
    "triton": lti_triton,
}


def lti(
    u: Tensor,
    lam: Tensor,
    C: Tensor,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """y_t = 2 Re C . x_t with x_t = exp(lam) x_{t-1} + u_t, along the sequence, in either direction.

    Args:
        u: real (batch, seqlen, dim).
        lam: complex (dim, dstate), lambda * dt with a negative real part; one of each conjugate pair.
        C: complex (dim, dstate), with the discretised B folded in.
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
    wanted = {
        "lam": (lam, (dim, lam.shape[-1])),
        "C": (C, (dim, lam.shape[-1])),
        "initial_state": (initial_state, (batch, dim, lam.shape[-1])),
        "mask": (mask, (batch, seqlen)),
        "segments": (segments, (batch, seqlen)),
    }
    for name, (value, shape) in wanted.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must be {shape}, is {tuple(value.shape)}")
    run = backend.pick("lti", BACKENDS, backend.default(u))
    return run(u, lam, C, initial_state=initial_state, mask=mask, segments=segments, reverse=reverse)
