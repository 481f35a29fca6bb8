"""RMSNorm, fused with the addition of the residual stream in front of it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.rms_norm.reference import rms_norm_ref
from genossm.kernels.rms_norm.triton_op import rms_norm_triton

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": rms_norm_ref,
    "torch": rms_norm_ref,
    "triton": rms_norm_triton,
}


def rms_norm(x: Tensor, weight: Tensor, *, residual: Tensor | None = None, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Normalise x + residual over the last axis.

    Args:
        x: (..., dim).
        weight: (dim,).
        residual: like x; may be of a wider dtype, which the sum then keeps.
        eps: added to the mean square.

    Returns:
        y like x, and the sum x + residual in the residual's dtype (x itself without a residual).

    Raises:
        ValueError: shapes that do not fit together.
    """
    if tuple(weight.shape) != x.shape[-1:]:
        raise ValueError(f"weight must be {tuple(x.shape[-1:])}, is {tuple(weight.shape)}")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"residual must be {tuple(x.shape)}, is {tuple(residual.shape)}")
    run = backend.pick("rms_norm", BACKENDS, "triton" if backend.default(x) == "triton" else "torch")
    return run(x, weight, residual=residual, eps=eps)
