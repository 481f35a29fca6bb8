"""The CPU kernel of Mamba-2's scan as a torch operator: layouts, gradients, shapes for the compiler."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels import threads
from genossm.kernels.flat import CHANNELS, NONE, Layout, flat, lanes, rows
from genossm.kernels.library import define
from genossm.kernels.segments import starts
from genossm.kernels.ssd.reference import skip_and_gate, time_step


def _tasks(batch: int, heads: int, groups: int, headdim: int) -> list[tuple[int, int, int, int, int]]:
    """(batch row, group, first head, heads, which share of its group) of every task: by shape alone."""
    own = heads // groups
    size = max(1, min(own, CHANNELS // headdim))
    return [
        (b, g, g * own + h, min(size, own - h), h // size)
        for b in range(batch) for g in range(groups) for h in range(0, own, size)
    ]  # fmt: skip


def _dense(x: Tensor) -> Tensor:
    """``x`` (batch, seqlen, a, b) as (batch, seqlen, a * b) with a dense last axis, a view where that is possible."""
    return rows(x.flatten(2))


def _decay(log_decay: Tensor, reset: Tensor | None) -> Tensor:
    """The decay of every token and head, 0 where the state is cleared."""
    e = torch.exp(log_decay)
    return (e if reset is None else e.masked_fill(reset[..., None], 0)).contiguous()


def _ssd_forward(
    x: Tensor,
    delta: Tensor,
    log_decay: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    state: Tensor,
    reset: Tensor | None,
    reverse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state (batch, heads, dstate, headdim), the states at tile borders (empty unless ``save``)."""
    from genossm.kernels.ssd.cpu import TILE, forward_task

    batch, seqlen, heads, size = x.shape
    groups, dstate = B.shape[2:]
    e, delta = _decay(log_decay, reset), delta.contiguous()
    y, last, tiles = torch.empty(x.shape), state.clone(memory_format=torch.contiguous_format), -(-seqlen // TILE)
    borders = torch.empty(batch, tiles, heads, dstate, size) if save else torch.empty(0)
    dense = [_dense(v) for v in (x, B, C)]
    lx, lb, lc = (Layout(v, reverse) for v in dense)
    ld, ly = Layout(delta, reverse), Layout(y, reverse)
    arrays = [flat(v) for v in (dense[0], delta, e, *dense[1:], NONE if D is None else D, last, y)]
    arrays.append(flat(borders if save else NONE))
    plan, wide = _tasks(batch, heads, groups, size), dstate * size

    def task(index: int) -> None:
        b, group, head, count, _ = plan[index]
        forward_task(
            *arrays, lx.step, ld.step, lb.step, lc.step, ly.step, lx.at(b, head * size), ld.at(b, head),
            lb.at(b, group * dstate), lc.at(b, group * dstate), ly.at(b, head * size), D is not None, save,
            head, count, size, dstate, seqlen,
            (b * tiles * heads + head) * wide, heads * wide, (b * heads + head) * wide,
        )  # fmt: skip

    threads.run(task, len(plan))
    return y, last, borders


def _ssd_backward(
    dy: Tensor,
    dlast: Tensor,
    x: Tensor,
    delta: Tensor,
    log_decay: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    reset: Tensor | None,
    borders: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, delta, log_decay, B, C, D (zero without one) and the initial state."""
    from genossm.kernels.ssd.cpu import TILE, backward_task

    batch, seqlen, heads, size = x.shape
    groups, dstate = B.shape[2:]
    e, delta = _decay(log_decay, reset), delta.contiguous()
    plan, wide, tiles = _tasks(batch, heads, groups, size), dstate * size, -(-seqlen // TILE)
    shares = 1 + max(share for *_, share in plan)
    dx, ddelta, dlog = torch.empty(x.shape), torch.empty(delta.shape), torch.empty(delta.shape)
    dB, dC = torch.empty(2, shares, batch, seqlen, groups, dstate)
    dD, initial = torch.zeros(batch, heads, size), dlast.clone(memory_format=torch.contiguous_format)
    dense = [_dense(v) for v in (x, B, C, dy)]
    lx, lb, lc, ly = (Layout(v, reverse) for v in dense)
    ld, lg, lp = Layout(delta, reverse), Layout(dx, reverse), Layout(dB[0], reverse)
    arrays = [flat(v) for v in (dense[0], delta, e, *dense[1:3], NONE if D is None else D, dense[3], borders)]
    arrays += [flat(v) for v in (dx, ddelta, dlog, dB, dC, dD, initial)]

    def task(index: int) -> None:
        b, group, head, count, share = plan[index]
        backward_task(
            *arrays, lx.step, ld.step, lb.step, lc.step, ly.step, lg.step, lx.at(b, head * size), ld.at(b, head),
            lb.at(b, group * dstate), lc.at(b, group * dstate), ly.at(b, head * size), lg.at(b, head * size),
            D is not None, head, count, size, dstate, seqlen,
            (b * tiles * heads + head) * wide, heads * wide, (b * heads + head) * wide,
            share * dB[0].numel() + lp.at(b, group * dstate), lp.step, (b * heads + head) * size,
        )  # fmt: skip

    threads.run(task, len(plan))
    return dx, ddelta, dlog, dB.sum(0), dC.sum(0), dD.sum(0), initial


def _forward_fake(
    x: Tensor, delta: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor,
    reset: Tensor | None, reverse: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    borders = x.new_empty(x.shape[0], -(-x.shape[1] // 128), *state.shape[1:]) if save else x.new_empty(0)
    return x.new_empty(x.shape), state.new_empty(state.shape), borders


def _backward_fake(
    dy: Tensor, dlast: Tensor, x: Tensor, delta: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    reset: Tensor | None, borders: Tensor, reverse: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    dD = x.new_empty(x.shape[2:])
    return *(v.new_empty(v.shape) for v in (x, delta, log_decay, B, C)), dD, dlast.new_empty(dlast.shape)


ssd_forward = define("ssd_cpu", _ssd_forward, _forward_fake)
ssd_backward = define("ssd_cpu_backward", _ssd_backward, _backward_fake)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, delta, log_decay, B, C, D, _state, reset, reverse, _save = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, delta, log_decay, B, C, D, reset, output[2])
    ctx.reverse = reverse
    ctx.mark_non_differentiable(output[2])


def _backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, _borders: Tensor | None) -> tuple[Any, ...]:
    x, delta, log_decay, B, C, D, reset, borders = ctx.saved_tensors
    dy = torch.zeros_like(x) if dy is None else dy
    dlast = x.new_zeros(x.shape[0], x.shape[2], B.shape[3], x.shape[3]) if dlast is None else dlast
    dx, ddelta, dlog, dB, dC, dD, initial = ssd_backward(
        dy, dlast, x, delta, log_decay, B, C, D, reset, borders, ctx.reverse
    )
    return dx, ddelta, dlog, dB, dC, None if D is None else dD, initial, None, None, None


torch.library.register_autograd("genossm::ssd_cpu", _backward, setup_context=_setup)


def ssd_cpu(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = True,
    dt_limit: tuple[float, float] | None = None,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.ssd.ssd`; float32 on a CPU.

    Raises:
        ValueError: another dtype or device.
    """
    types = {v.dtype for v in (x, dt, A, B, C)}
    if x.device.type != "cpu" or types != {torch.float32}:
        found = " and ".join(sorted(map(str, types)))
        raise ValueError(f"the cpu backend of ssd takes float32 on a CPU, not {found} on {x.device}")
    batch, _, heads, headdim = x.shape
    dstate = B.shape[3]
    if x.numel() == 0:
        empty = x.new_zeros(batch, heads, headdim, dstate) if initial_state is None else initial_state
        return torch.zeros_like(x), empty
    delta = time_step(dt, dt_bias, dt_softplus, dt_limit, mask)
    skip = None if D is None else (D if D.dim() == 2 else D[:, None].expand(heads, headdim)).contiguous()
    state = x.new_zeros(batch, heads, dstate, headdim) if initial_state is None else initial_state.mT.contiguous()
    inner, more, odd = x, -headdim % (2 * lanes()), -dstate % lanes()
    if more or odd:  # whole vectors: idle channels and idle states
        inner, B, C = F.pad(x, (0, more)), F.pad(B, (0, odd)), F.pad(C, (0, odd))
        skip, state = None if skip is None else F.pad(skip, (0, more)), F.pad(state, (0, more, 0, odd))
    inputs = (inner, delta, delta * A, B, C, skip, state)
    save = torch.is_grad_enabled() and any(v is not None and v.requires_grad for v in inputs)
    y, last, _ = ssd_forward(*inputs, starts(segments, mask, reverse=reverse), reverse, save)
    return skip_and_gate(y[..., :headdim], x, None, z), last[:, :, :dstate, :headdim].mT
