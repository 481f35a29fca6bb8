"""The CPU kernel as a torch operator: layouts, gradients, shapes for the compiler."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels import threads
from genossm.kernels.flat import CHANNELS, NO_BYTES, NONE, Layout, flat, lanes, rows, tasks
from genossm.kernels.library import define
from genossm.kernels.segments import starts

LN2 = 0.6931471805599453


def _to_groups(x: Tensor) -> Tensor:
    """(..., dim, dstate) to (..., dim / LANES, dstate, LANES), dense, always a copy: the kernels write into it."""
    return x.unflatten(-2, (-1, lanes())).transpose(-1, -2).clone(memory_format=torch.contiguous_format)


def _from_groups(x: Tensor, dim: int, dstate: int) -> Tensor:
    """The inverse of :func:`_to_groups` on a flat or grouped tensor with leading axes."""
    return x.view(*x.shape[:1], -1, dstate, lanes()).transpose(-1, -2).reshape(x.shape[0], dim, dstate).contiguous()


def _scan_forward(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor,
    state: Tensor,
    mask: Tensor | None,
    reset: Tensor | None,
    dt_softplus: bool,
    reverse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and the states at tile borders (empty unless ``save``); dim is a multiple of LANES."""
    from genossm.kernels.selective_scan.cpu import TILE, forward_task

    batch, seqlen, dim = u.shape
    dstate = A.shape[1]
    u, dt, B, C = rows(u), rows(dt), rows(B), rows(C)
    z = None if z is None else rows(z)
    y = torch.empty(batch, seqlen, dim)
    tiles = -(-seqlen // TILE)
    borders = torch.empty(batch, tiles, dim * dstate) if save else torch.empty(0)
    last = _to_groups(state)
    a = flat(_to_groups(A / LN2))
    lu, ld, lb, lc, lz, ly, lm = (Layout(v, reverse) for v in (u, dt, B, C, z, y, mask if mask is not None else reset))
    arrays = [flat(v) for v in (u, dt)] + [a] + [flat(v) for v in (B, C, D)]
    arrays += [flat(NONE if z is None else z), flat(dt_bias)]
    marks = [flat(NO_BYTES if v is None else v) for v in (mask, reset)]
    out = [flat(last), flat(y), flat(borders if save else NONE)]

    plan = tasks(batch, dim)

    def task(index: int) -> None:
        b, channel, groups = plan[index]
        forward_task(
            *arrays, *marks, *out, lu.step, ld.step, lb.step, lc.step, lz.step, ly.step, lm.step,
            lu.at(b, channel), ld.at(b, channel), lb.at(b), lc.at(b), lz.at(b, channel), ly.at(b, channel), lm.at(b),
            dt_softplus, z is not None, mask is not None, reset is not None, save, channel, groups, dstate, seqlen,
            b * tiles * dim * dstate + channel * dstate, dim * dstate, (b * dim + channel) * dstate,
        )  # fmt: skip

    threads.run(task, len(plan))
    return y, _from_groups(last, dim, dstate), borders


def _forward_fake(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None, dt_bias: Tensor,
    state: Tensor, mask: Tensor | None, reset: Tensor | None, dt_softplus: bool, reverse: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    tiles = -(-u.shape[1] // 64)
    borders = u.new_empty(u.shape[0], tiles, A.shape[0] * A.shape[1]) if save else u.new_empty(0)
    return torch.empty_like(u, memory_format=torch.contiguous_format), torch.empty_like(state), borders


def _scan_backward(
    dy: Tensor,
    dlast: Tensor,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor,
    mask: Tensor | None,
    reset: Tensor | None,
    borders: Tensor,
    dt_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, dt, A, B, C, D, z (empty without z), dt_bias and the initial state."""
    from genossm.kernels.selective_scan.cpu import TILE, backward_task

    batch, seqlen, dim = u.shape
    dstate = A.shape[1]
    u, dt, B, C, dy = rows(u), rows(dt), rows(B), rows(C), rows(dy)
    z = None if z is None else rows(z)
    gu, gdt = torch.empty(batch, seqlen, dim), torch.empty(batch, seqlen, dim)
    gz = torch.empty(0) if z is None else torch.empty(batch, seqlen, dim)
    blocks = -(-dim // CHANNELS)
    gB, gC = torch.empty(blocks, batch, seqlen, dstate), torch.empty(blocks, batch, seqlen, dstate)
    gA, gD, gbias = torch.zeros(batch, dim * dstate), torch.zeros(batch, dim), torch.zeros(batch, dim)
    dstate_grouped = _to_groups(dlast)
    tiles = -(-seqlen // TILE)
    tensors = (u, dt, B, C, z, dy, mask if mask is not None else reset)
    lu, ld, lb, lc, lz, ly, lm = (Layout(v, reverse) for v in tensors)
    lgu, lgd, lgz = (Layout(v, reverse) for v in (gu, gdt, None if z is None else gz))
    lp = Layout(gB[0], reverse)
    arrays = [flat(v) for v in (u, dt)] + [flat(_to_groups(A / LN2))] + [flat(v) for v in (B, C, D)]
    arrays += [flat(NONE if z is None else z), flat(dt_bias)]
    marks = [flat(NO_BYTES if v is None else v) for v in (mask, reset)]
    rest = [flat(v) for v in (borders, dy, dstate_grouped, gu, gdt, NONE if z is None else gz, gB, gC, gA, gD, gbias)]
    plan = tasks(batch, dim)
    share = batch * seqlen * dstate

    def task(index: int) -> None:
        b, channel, groups = plan[index]
        steps = [v.step for v in (lu, ld, lb, lc, lz, ly, lm, lgu, lgd, lgz)]
        starts_ = [lu.at(b, channel), ld.at(b, channel), lb.at(b), lc.at(b), lz.at(b, channel), ly.at(b, channel)]
        starts_ += [lm.at(b), lgu.at(b, channel), lgd.at(b, channel), lgz.at(b, channel)]
        backward_task(
            *arrays, *marks, *rest, *steps, *starts_,
            dt_softplus, z is not None, mask is not None, reset is not None, channel, groups, dstate, seqlen,
            b * tiles * dim * dstate + channel * dstate, dim * dstate, (b * dim + channel) * dstate,
            channel // CHANNELS * share + lp.at(b), lp.step,
        )  # fmt: skip

    threads.run(task, len(plan))
    grad_A = _from_groups(gA, dim, dstate).sum(0)
    initial = _from_groups(dstate_grouped, dim, dstate)
    return gu, gdt, grad_A, gB.sum(0), gC.sum(0), gD.sum(0), gz, gbias.sum(0), initial


def _backward_fake(
    dy: Tensor, dlast: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None,
    dt_bias: Tensor, mask: Tensor | None, reset: Tensor | None, borders: Tensor, dt_softplus: bool, reverse: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    def like(x: Tensor) -> Tensor:
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    gz = u.new_empty(0) if z is None else like(z)
    return like(u), like(dt), like(A), like(B), like(C), like(D), gz, like(dt_bias), like(dlast)


scan_forward = define("selective_scan_cpu", _scan_forward, _forward_fake)
scan_backward = define("selective_scan_cpu_backward", _scan_backward, _backward_fake)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, dt_softplus, reverse, _save = inputs
    u, dt, A, B, C, D, z, dt_bias, _state, mask, reset = tensors
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(u, dt, A, B, C, D, z, dt_bias, mask, reset, output[2])
    ctx.options = (dt_softplus, reverse)
    ctx.mark_non_differentiable(output[2])


def _backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, _borders: Tensor | None) -> tuple[Any, ...]:
    u, dt, A, B, C, D, z, dt_bias, mask, reset, borders = ctx.saved_tensors
    dy = torch.zeros_like(u) if dy is None else dy
    dlast = u.new_zeros(u.shape[0], *A.shape) if dlast is None else dlast
    gu, gdt, gA, gB, gC, gD, gz, gbias, initial = scan_backward(
        dy, dlast, u, dt, A, B, C, D, z, dt_bias, mask, reset, borders, *ctx.options
    )
    return gu, gdt, gA, gB, gC, gD, None if z is None else gz, gbias, initial, *([None] * 5)


torch.library.register_autograd("genossm::selective_scan_cpu", _backward, setup_context=_setup)


def selective_scan_cpu(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = True,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.selective_scan.selective_scan`; float32 on a CPU."""
    batch, seqlen, dim = u.shape
    types = {v.dtype for v in (u, dt, A, B, C)}
    if u.device.type != "cpu" or types != {torch.float32}:
        found = " and ".join(sorted(map(str, types)))
        raise ValueError(f"the cpu backend of selective_scan takes float32 on a CPU, not {found} on {u.device}")
    D = u.new_zeros(dim) if D is None else D
    dt_bias = u.new_zeros(dim) if dt_bias is None else dt_bias
    state = u.new_zeros(batch, dim, A.shape[1]) if initial_state is None else initial_state
    if seqlen == 0 or batch == 0:
        return torch.zeros_like(u), state
    resets = starts(segments, mask, reverse=reverse)
    marks = [None if v is None else v.contiguous().view(torch.uint8) for v in (mask, resets)]
    more, odd = -dim % lanes(), A.shape[1] % 2
    if more or odd:  # whole vectors: idle channels and an idle state
        u, dt = F.pad(u, (0, more)), F.pad(dt, (0, more))
        z = None if z is None else F.pad(z, (0, more))
        D, dt_bias = F.pad(D, (0, more)), F.pad(dt_bias, (0, more))
        A, state = F.pad(A, (0, odd, 0, more)), F.pad(state, (0, odd, 0, more))
        B, C = F.pad(B, (0, odd)), F.pad(C, (0, odd))
    inputs = (u, dt, A, B, C, D, z, dt_bias, state)
    save = torch.is_grad_enabled() and any(v is not None and v.requires_grad for v in inputs)
    y, last, _ = scan_forward(*inputs, *marks, dt_softplus, reverse, save)
    return y[..., :dim], last[:, :dim, : last.shape[2] - odd]
