"""The Triton kernels of the cross entropy as a torch operator: launches, gradients, shapes for the compiler."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genossm.kernels import targets
from genossm.kernels.library import GPU, define
from genossm.kernels.targets import RowBlocks

LARGEST_VOCABULARY = 16
LARGEST_WIDTH = 2048
"""d_model whose rows, weights and gradient still fit one program."""

GROUP = 16
"""Blocks of tokens that a program of backward takes: so many times fewer partial sums of the weight's gradient."""

BLOCKS = {
    "sm_80": RowBlocks(elements=8192, warps=4),
    "sm_90": RowBlocks(elements=8192, warps=4),
    "sm_100": RowBlocks(elements=8192, warps=4),
    "gfx942": RowBlocks(elements=8192, warps=4),
    targets.INTERPRETER: RowBlocks(elements=256, warps=1),
}


def _shape(hidden: Tensor) -> tuple[int, int, dict[str, Any]]:
    """Tokens, tokens of a program (a matrix product needs 16), and what both kernels share."""
    blocks = BLOCKS[targets.target(hidden.device)]
    block = max(16, targets.power_of_two(hidden.shape[-1]))
    per_program = max(16, blocks.elements // block)
    warps = max(blocks.warps, min(16, block // 128))
    shape = {"ROWS": per_program, "BLOCK": block, "V": LARGEST_VOCABULARY, "num_warps": warps, "num_stages": 1}
    return hidden.numel() // hidden.shape[-1], per_program, {**shape, "enable_fp_fusion": True}


def forward(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Losses, float32, of the shape of ``labels``; weight in hidden's dtype, bias float32."""
    from genossm.kernels.cross_entropy.triton import loss_forward

    rows, per_program, shape = _shape(hidden)
    hidden, weight, labels = hidden.contiguous(), weight.contiguous(), labels.contiguous()
    loss = torch.empty(labels.shape, device=hidden.device, dtype=torch.float32)
    loss_forward[(-(-rows // per_program),)](
        hidden, weight, bias, labels, loss, rows, hidden.shape[-1], weight.shape[0], ignore_index, **shape
    )  # fmt: skip
    return loss


def backward(
    dloss: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of hidden, weight and bias."""
    from genossm.kernels.cross_entropy.triton import loss_backward

    rows, per_program, shape = _shape(hidden)
    programs = -(-rows // (per_program * GROUP))
    hidden, weight, labels = hidden.contiguous(), weight.contiguous(), labels.contiguous()
    dhidden = torch.empty_like(hidden)
    dweight = torch.empty(programs, LARGEST_VOCABULARY, hidden.shape[-1], device=hidden.device, dtype=torch.float32)
    dbias = torch.empty(programs, LARGEST_VOCABULARY, device=hidden.device, dtype=torch.float32)
    loss_backward[(programs,)](
        dloss.float().contiguous(), hidden, weight, bias, labels, dhidden, dweight, dbias,
        rows, hidden.shape[-1], weight.shape[0], ignore_index, GROUP=GROUP, **shape,
    )  # fmt: skip
    vocabulary = weight.shape[0]
    return dhidden, dweight.sum(0)[:vocabulary].to(weight.dtype), dbias.sum(0)[:vocabulary].contiguous()


def _forward_fake(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    return hidden.new_empty(labels.shape, dtype=torch.float32)


def _backward_fake(
    dloss: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    return hidden.new_empty(hidden.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


loss_forward = define("cross_entropy_triton", forward, _forward_fake, GPU)
loss_backward = define("cross_entropy_triton_backward", backward, _backward_fake, GPU)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.ignore_index = inputs[4]


def _backward(ctx: Any, dloss: Tensor) -> tuple[Any, ...]:
    return *loss_backward(dloss, *ctx.saved_tensors, ctx.ignore_index), None, None


torch.library.register_autograd("genossm::cross_entropy_triton", _backward, setup_context=_setup)


def cross_entropy_triton(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, bias: Tensor | None = None, ignore_index: int = -100
) -> Tensor:
    """Arguments and results as :func:`genossm.kernels.cross_entropy.cross_entropy`; a foreign label gives NaN.

    Raises:
        ValueError: not a GPU (nor Triton's interpreter), a dtype that the kernels do not take, or too wide a model.
    """
    targets.target(hidden.device)
    targets.check("cross_entropy", hidden=hidden, weight=weight, bias=bias)
    if hidden.shape[-1] > LARGEST_WIDTH:
        raise ValueError(f"the triton backend of cross_entropy takes d_model up to {LARGEST_WIDTH}")
    bias = weight.new_zeros(weight.shape[0], dtype=torch.float32) if bias is None else bias.float().contiguous()
    if labels.numel() == 0:
        return hidden.new_zeros(labels.shape, dtype=torch.float32)
    return loss_forward(hidden, weight.to(hidden.dtype), bias, labels, ignore_index)
