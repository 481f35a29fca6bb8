"""The CPU kernel as a torch operator: layouts, gradients, shapes for the compiler."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels import threads
from genossm.kernels.causal_conv1d.reference import final_taps
from genossm.kernels.flat import NO_BYTES, NONE, Layout, flat, lanes, rows, tasks
from genossm.kernels.library import define
from genossm.kernels.segments import starts


def tokens_since_start(segments: Tensor, mask: Tensor | None, limit: int, reverse: bool) -> Tensor:
    """Tokens since the first of the segment in reading order, at most ``limit``; uint8 (batch, seqlen).

    The first segment of a row continues what was carried, so it counts as long past its start.
    """
    begins = starts(segments, mask, reverse=reverse)
    assert begins is not None
    begins = begins.flip(1) if reverse else begins
    position = torch.arange(begins.shape[1], device=begins.device).expand_as(begins)
    since = position - torch.where(begins, position, -limit).cummax(dim=1).values
    since = since.clamp(max=limit).to(torch.uint8)
    return (since.flip(1) if reverse else since).contiguous()


def _conv_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    taps: Tensor | None,
    mask: Tensor | None,
    since: Tensor | None,
    silu: bool,
    reverse: bool,
) -> Tensor:
    """y (batch, seqlen, dim); dim is a multiple of LANES, taps are in reading order."""
    from genossm.kernels.causal_conv1d.cpu import forward_task

    batch, seqlen, dim = x.shape
    width = weight.shape[1]
    x = rows(x)
    y = torch.empty(batch, seqlen, dim)
    lx, ly, lm = Layout(x, reverse), Layout(y, reverse), Layout(mask if mask is not None else since, reverse)
    history = NONE if taps is None else taps.contiguous()
    arrays = [flat(v) for v in (x, weight.flip(1).T.contiguous(), bias, history)]
    arrays += [flat(NO_BYTES if v is None else v) for v in (mask, since)] + [flat(y)]
    plan = tasks(batch, dim)

    def task(index: int) -> None:
        b, channel, groups = plan[index]
        forward_task(
            *arrays, lx.step, ly.step, lm.step, lx.at(b, channel), ly.at(b, channel), lm.at(b),
            (b + 1) * (width - 1) * dim + channel, dim, channel, groups, width, seqlen,
            taps is not None, mask is not None, since is not None, silu,
        )  # fmt: skip

    threads.run(task, len(plan))
    return y


def _forward_fake(
    x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor | None, mask: Tensor | None, since: Tensor | None,
    silu: bool, reverse: bool,
) -> Tensor:  # fmt: skip
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _conv_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    taps: Tensor | None,
    mask: Tensor | None,
    since: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and taps (empty without taps)."""
    from genossm.kernels.causal_conv1d.cpu import backward_task

    batch, seqlen, dim = x.shape
    width = weight.shape[1]
    x, dy = rows(x), rows(dy)
    dx = torch.empty(batch, seqlen, dim)
    dtaps = torch.empty(0) if taps is None else torch.zeros(batch, width - 1, dim)
    dweight, dbias = torch.zeros(batch, dim * width), torch.zeros(batch, dim)
    lx, ly, lg = Layout(x, reverse), Layout(dy, reverse), Layout(dx, reverse)
    lm = Layout(mask if mask is not None else since, reverse)
    history = NONE if taps is None else taps.contiguous()
    arrays = [flat(v) for v in (x, weight.flip(1).T.contiguous(), bias, history)]
    arrays += [flat(NO_BYTES if v is None else v) for v in (mask, since)]
    arrays += [flat(v) for v in (dy, dx, NONE if taps is None else dtaps, dweight, dbias)]
    plan = tasks(batch, dim)

    def task(index: int) -> None:
        b, channel, groups = plan[index]
        backward_task(
            *arrays, lx.step, ly.step, lg.step, lm.step, lx.at(b, channel), ly.at(b, channel), lg.at(b, channel),
            lm.at(b), (b + 1) * (width - 1) * dim + channel, b * dim + channel, dim, channel, groups, width, seqlen,
            taps is not None, mask is not None, since is not None, silu,
        )  # fmt: skip

    threads.run(task, len(plan))
    # each task wrote its (width, channels) block densely
    blocks = [
        dweight.view(batch, dim * width)[:, c * width : (c + g * lanes()) * width].sum(0).view(width, -1)
        for b, c, g in plan
        if b == 0
    ]
    return dx, torch.cat(blocks, dim=1).T.flip(1).contiguous(), dbias.sum(0), dtaps


def _backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor | None, mask: Tensor | None,
    since: Tensor | None, silu: bool, reverse: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    dtaps = x.new_empty(0) if taps is None else torch.empty_like(taps)
    return torch.empty_like(x, memory_format=torch.contiguous_format), *map(torch.empty_like, (weight, bias)), dtaps


conv_forward = define("causal_conv1d_cpu", _conv_forward, _forward_fake)
conv_backward = define("causal_conv1d_cpu_backward", _conv_backward, _backward_fake)


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


torch.library.register_autograd("genossm::causal_conv1d_cpu", _backward, setup_context=_setup)


def causal_conv1d_cpu(
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
    """Arguments and results as :func:`genossm.kernels.causal_conv1d.causal_conv1d`; float32 on a CPU."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32:
        raise ValueError(f"the cpu backend of causal_conv1d takes float32 on a CPU, not {x.dtype} on {x.device}")
    dim, width = weight.shape
    carried = final_taps(x if mask is None else x * mask[..., None], width - 1, initial_taps, mask, segments, reverse)
    if x.numel() == 0:
        return x, carried
    since = None if segments is None else tokens_since_start(segments, mask, width - 1, reverse)
    marks = None if mask is None else mask.contiguous().view(torch.uint8)
    bias = x.new_zeros(dim) if bias is None else bias
    taps = initial_taps
    if taps is not None and reverse:
        taps = taps.flip(1)
    more = -dim % lanes()
    if more:
        x, bias = F.pad(x, (0, more)), F.pad(bias, (0, more))
        weight, taps = F.pad(weight, (0, 0, 0, more)), None if taps is None else F.pad(taps, (0, more))
    return conv_forward(x, weight, bias, taps, marks, since, silu, reverse)[..., :dim], carried
