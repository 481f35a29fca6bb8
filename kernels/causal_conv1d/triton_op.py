"""The Triton kernels of the causal convolution as a torch operator: launches, gradients, shapes for the compiler."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genossm.kernels import targets
from genossm.kernels.causal_conv1d.op import tokens_since_start
from genossm.kernels.causal_conv1d.reference import final_taps
from genossm.kernels.flat import rows
from genossm.kernels.library import GPU, define
from genossm.kernels.targets import RowBlocks

CHUNK = 64
"""Tokens of a program; WIDTH - 1 more are read before it, and walked after it in backward."""

BLOCKS = {
    "sm_80": RowBlocks(elements=128, warps=2),
    "sm_90": RowBlocks(elements=128, warps=2),
    "sm_100": RowBlocks(elements=128, warps=2),
    "gfx942": RowBlocks(elements=128, warps=1),
    targets.INTERPRETER: RowBlocks(elements=8, warps=1),
}


def _launch(
    x: Tensor, weight: Tensor, mask: Tensor | None, since: Tensor | None, taps: Tensor | None, reverse: bool
) -> tuple[tuple[int, int, int], dict[str, Any], int]:
    """Grid and keyword arguments that both kernels share, and the first row read."""
    blocks = BLOCKS[targets.target(x.device)]
    batch, seqlen, dim = x.shape
    grid = (-(-dim // blocks.elements), -(-seqlen // CHUNK), batch)
    shape = {
        "WIDTH": weight.shape[1], "MASK": mask is not None, "SEGMENTS": since is not None, "TAPS": taps is not None,
        "STEP": -1 if reverse else 1, "CHUNK": CHUNK, "BD": blocks.elements,
        "num_warps": blocks.warps, "num_stages": 1, "enable_fp_fusion": True,
    }  # fmt: skip
    return grid, shape, seqlen - 1 if reverse else 0


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor | None, mask: Tensor | None, since: Tensor | None,
    silu: bool, reverse: bool,
) -> Tensor:  # fmt: skip
    """y (batch, seqlen, dim); taps are in reading order, weight and bias float32."""
    from genossm.kernels.causal_conv1d.triton import conv_forward

    grid, shape, first = _launch(x, weight, mask, since, taps, reverse)
    x, taps = rows(x), None if taps is None else taps.contiguous()
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    conv_forward[grid](
        x, weight.T.contiguous(), bias, taps, mask, since, y,
        *x.shape[1:], first, *x.stride()[:2], *y.stride()[:2], SILU=silu, **shape,
    )  # fmt: skip
    return y


def backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor | None, mask: Tensor | None,
    since: Tensor | None, silu: bool, reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, weight, bias and taps (empty without taps)."""
    from genossm.kernels.causal_conv1d.triton import conv_backward

    grid, shape, first = _launch(x, weight, mask, since, taps, reverse)
    x, dy, taps = rows(x), rows(dy), None if taps is None else taps.contiguous()
    (batch, seqlen, dim), width = x.shape, weight.shape[1]
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dtaps = x.new_empty(0) if taps is None else torch.empty_like(taps)
    dweight = torch.empty(batch, grid[1], width, dim, device=x.device, dtype=torch.float32)
    dbias = torch.empty(batch, grid[1], dim, device=x.device, dtype=torch.float32)
    conv_backward[grid](
        x, weight.T.contiguous(), bias, taps, mask, since, dy, dx, dtaps, dweight, dbias,
        seqlen, dim, first, *x.stride()[:2], *dy.stride()[:2], SILU=silu, **shape,
    )  # fmt: skip
    return dx, dweight.sum((0, 1)).T.contiguous(), dbias.sum((0, 1)), dtaps


def _forward_fake(
    x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor | None, mask: Tensor | None, since: Tensor | None,
    silu: bool, reverse: bool,
) -> Tensor:  # fmt: skip
    return x.new_empty(x.shape)


def _backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor | None, mask: Tensor | None,
    since: Tensor | None, silu: bool, reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dtaps = x.new_empty(0) if taps is None else taps.new_empty(taps.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape), dtaps


conv_forward = define("causal_conv1d_triton", forward, _forward_fake, GPU)
conv_backward = define("causal_conv1d_triton_backward", backward, _backward_fake, GPU)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]


def _backward(ctx: Any, dy: Tensor | None) -> tuple[Any, ...]:
    if dy is None:
        return (None,) * 8
    saved = ctx.saved_tensors  # read once: a checkpoint gives them only once
    dx, dweight, dbias, dtaps = conv_backward(dy, *saved, *ctx.options)
    return dx, dweight, dbias, None if saved[3] is None else dtaps, None, None, None, None


torch.library.register_autograd("genossm::causal_conv1d_triton", _backward, setup_context=_setup)


def causal_conv1d_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    silu: bool = True,
    initial_taps: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.causal_conv1d.causal_conv1d`; sums are float32.

    Raises:
        ValueError: not a GPU (nor Triton's interpreter), a dtype that the kernels do not take, or too many taps.
    """
    targets.target(x.device)
    targets.check("causal_conv1d", x=x, weight=weight, bias=bias, initial_taps=initial_taps)
    width = weight.shape[1]
    if width > CHUNK:
        raise ValueError(f"the triton backend of causal_conv1d takes at most {CHUNK} taps, not {width}")
    carried = final_taps(x if mask is None else x * mask[..., None], width - 1, initial_taps, mask, segments, reverse)
    if x.numel() == 0:
        return x, carried
    since = None if segments is None else tokens_since_start(segments, mask, width - 1, reverse)
    marks = None if mask is None else mask.contiguous().view(torch.uint8)
    bias = x.new_zeros(x.shape[2], dtype=torch.float32) if bias is None else bias.float().contiguous()
    taps = initial_taps.flip(1) if initial_taps is not None and reverse else initial_taps
    return conv_forward(x, weight.float(), bias, taps, marks, since, silu, reverse), carried
