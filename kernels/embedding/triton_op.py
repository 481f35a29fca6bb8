"""The Triton kernels of the embedding as a torch operator: launches, gradient, shapes for the compiler."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genossm.kernels import targets
from genossm.kernels.library import GPU, define
from genossm.kernels.targets import RowBlocks

LARGEST_VOCABULARY = 16
WIDTH = 128
"""Columns of a program at most."""

GROUP = 16
"""Blocks of tokens that a program of backward takes: so many times fewer partial sums."""

BLOCKS = {
    "sm_80": RowBlocks(elements=4096, warps=4),
    "sm_90": RowBlocks(elements=4096, warps=4),
    "sm_100": RowBlocks(elements=4096, warps=4),
    "gfx942": RowBlocks(elements=4096, warps=4),
    targets.INTERPRETER: RowBlocks(elements=256, warps=1),
}


def _shape(ids: Tensor, weight: Tensor) -> tuple[int, int, dict[str, Any]]:
    """Tokens of a program (a matrix product needs 16), blocks of columns, and what both kernels share."""
    blocks = BLOCKS[targets.target(ids.device)]
    block = min(WIDTH, max(16, targets.power_of_two(weight.shape[1])))
    per_program = max(16, blocks.elements // block)
    shape = {"ROWS": per_program, "BLOCK": block, "num_warps": blocks.warps, "num_stages": 1}
    return per_program, -(-weight.shape[1] // block), {**shape, "enable_fp_fusion": True}


def forward(ids: Tensor, weight: Tensor) -> Tensor:
    """weight[ids]."""
    from genossm.kernels.embedding.triton import lookup

    per_program, columns, shape = _shape(ids, weight)
    ids, weight = ids.contiguous(), weight.contiguous()
    y = torch.empty(*ids.shape, weight.shape[1], dtype=weight.dtype, device=weight.device)
    grid = (-(-ids.numel() // per_program), columns)
    lookup[grid](ids, weight, y, ids.numel(), weight.shape[1], weight.shape[0], **shape)
    return y


def backward(dy: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the table."""
    from genossm.kernels.embedding.triton import scatter

    per_program, columns, shape = _shape(ids, weight)
    programs = -(-ids.numel() // (per_program * GROUP))
    dweight = torch.empty(programs, LARGEST_VOCABULARY, weight.shape[1], device=dy.device, dtype=torch.float32)
    scatter[(programs, columns)](
        ids.contiguous(), dy.contiguous(), dweight, ids.numel(), weight.shape[1],
        V=LARGEST_VOCABULARY, GROUP=GROUP, **shape,
    )  # fmt: skip
    return dweight.sum(0)[: weight.shape[0]].to(weight.dtype)


def _forward_fake(ids: Tensor, weight: Tensor) -> Tensor:
    return weight.new_empty(*ids.shape, weight.shape[1])


def _backward_fake(dy: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
    return weight.new_empty(weight.shape)


lookup = define("embedding_triton", forward, _forward_fake, GPU)
scatter = define("embedding_triton_backward", backward, _backward_fake, GPU)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    return None, scatter(dy, *ctx.saved_tensors)


torch.library.register_autograd("genossm::embedding_triton", _backward, setup_context=_setup)


def embedding_triton(ids: Tensor, weight: Tensor) -> Tensor:
    """Arguments and results as :func:`genossm.kernels.embedding.embedding`; a foreign id gives NaN.

    Raises:
        ValueError: not a GPU (nor Triton's interpreter), or a dtype that the kernels do not take.
    """
    targets.target(weight.device)
    targets.check("embedding", weight=weight)
    if ids.numel() == 0:
        return weight.new_empty(*ids.shape, weight.shape[1])
    return lookup(ids, weight)
