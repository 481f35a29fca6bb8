"""The Triton kernels of RMSNorm as a torch operator: launches, gradients, shapes for the compiler."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genossm.kernels import targets
from genossm.kernels.library import GPU, define
from genossm.kernels.targets import RowBlocks

GROUP = 16
"""Blocks of rows that a program of backward takes: so many times fewer partial sums of the weight's gradient."""

BLOCKS = {
    "sm_80": RowBlocks(elements=2048, warps=4),
    "sm_90": RowBlocks(elements=2048, warps=4),
    "sm_100": RowBlocks(elements=2048, warps=4),
    "gfx942": RowBlocks(elements=2048, warps=4),
    targets.INTERPRETER: RowBlocks(elements=16, warps=1),
}


def _shape(x: Tensor) -> tuple[int, int, dict[str, Any]]:
    """Rows, rows of a program, and the keyword arguments that both kernels share."""
    blocks = BLOCKS[targets.target(x.device)]
    block = targets.power_of_two(x.shape[-1])
    per_program = max(1, blocks.elements // block)
    warps = max(blocks.warps, min(16, block // 1024))
    shape = {"ROWS": per_program, "BLOCK": block, "num_warps": warps, "num_stages": 1, "enable_fp_fusion": True}
    return x.numel() // x.shape[-1], per_program, shape


def forward(x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """y, the sum (empty without a residual) and 1 / root mean square of every row."""
    from genossm.kernels.rms_norm.triton import norm_forward

    rows, per_program, shape = _shape(x)
    x, residual = x.contiguous(), None if residual is None else residual.contiguous()
    y = torch.empty_like(x)
    total = x.new_empty(0) if residual is None else torch.empty_like(residual)
    scale = torch.empty(rows, device=x.device, dtype=torch.float32)
    norm_forward[(-(-rows // per_program),)](
        x, residual, weight, y, total, scale, rows, x.shape[-1], eps, RESIDUAL=residual is not None, **shape
    )  # fmt: skip
    return y, total, scale


def backward(dy: Tensor, dtotal: Tensor | None, total: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the sum and of the weight."""
    from genossm.kernels.rms_norm.triton import norm_backward

    rows, per_program, shape = _shape(total)
    programs = -(-rows // (per_program * GROUP))
    total, dy, dtotal = total.contiguous(), dy.contiguous(), None if dtotal is None else dtotal.contiguous()
    dx = torch.empty_like(total)
    dweight = torch.empty(programs, total.shape[-1], device=total.device, dtype=torch.float32)
    norm_backward[(programs,)](
        dy, dtotal, total, weight, scale, dx, dweight, rows, total.shape[-1],
        MORE=dtotal is not None, GROUP=GROUP, **shape,
    )  # fmt: skip
    return dx, dweight.sum(0)


def _forward_fake(x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    total = x.new_empty(0) if residual is None else residual.new_empty(residual.shape)
    return x.new_empty(x.shape), total, x.new_empty(x.numel() // x.shape[-1], dtype=torch.float32)


def _backward_fake(
    dy: Tensor, dtotal: Tensor | None, total: Tensor, weight: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    return total.new_empty(total.shape), weight.new_empty(weight.shape)


norm_forward = define("rms_norm_triton", forward, _forward_fake, GPU)
norm_backward = define("rms_norm_triton_backward", backward, _backward_fake, GPU)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, residual, _eps = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x if residual is None else output[1], weight, output[2])
    ctx.dtypes = x.dtype, None if residual is None else residual.dtype
    ctx.mark_non_differentiable(output[2])


def _backward(ctx: Any, dy: Tensor | None, dtotal: Tensor | None, _scale: Tensor | None) -> tuple[Any, ...]:
    total, weight, scale = ctx.saved_tensors
    narrow, wide = ctx.dtypes
    dtotal = None if wide is None else dtotal
    dy = torch.zeros_like(total, dtype=narrow) if dy is None else dy
    dx, dweight = norm_backward(dy, dtotal, total, weight, scale)
    return dx.to(narrow), dweight, None if wide is None else dx, None


torch.library.register_autograd("genossm::rms_norm_triton", _backward, setup_context=_setup)


def rms_norm_triton(
    x: Tensor, weight: Tensor, *, residual: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.rms_norm.rms_norm`.

    Raises:
        ValueError: not a GPU (nor Triton's interpreter), or a dtype that the kernels do not take.
    """
    targets.target(x.device)
    targets.check("rms_norm", x=x, weight=weight, residual=residual)
    if x.numel() == 0:
        return x, x if residual is None else residual
    y, total, _ = norm_forward(x, weight.float().contiguous(), residual, eps)
    return y, x if residual is None else total
