"""The CPU kernel of the diagonal state space as a torch operator: tables, layouts, gradients, compiler shapes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels import threads
from genossm.kernels.flat import NO_BYTES, NONE, Layout, flat, lanes, rows
from genossm.kernels.library import define
from genossm.kernels.segments import starts


def tables(lam: Tensor, C: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a block of ``size`` tokens does, from lam and C (dim, dstate), both multiples of what the kernel takes.

    Every power comes from double precision and is rounded once.

    Returns:
        inflow and outflow (groups, dstate, 2, size, lanes): w^(size - 1 - j), and 2 C w^(j + 1) with the sign of its
        imaginary part turned; K (groups, size, lanes), the first taps; and w^size - 1 (groups, dstate, 2, lanes).
    """
    exponent, weight = lam.to(torch.complex128), 2 * C.to(torch.complex128)
    decay = torch.exp(exponent)
    powers = [torch.ones_like(decay)]
    for _ in range(size):
        powers.append(powers[-1] * decay)
    inflow = torch.view_as_real(torch.stack(powers[size - 1 :: -1], dim=-1))  # (dim, dstate, size, 2)
    outflow = torch.view_as_real((weight[..., None] * torch.stack(powers[1:], dim=-1)).conj().resolve_conj())
    K = torch.stack([(weight * power).sum(-1).real for power in powers[:size]], dim=-1)
    step = torch.view_as_real(torch.expm1(exponent * size))
    return _grouped(inflow.mT), _grouped(outflow.mT), _grouped(K), _grouped(step)


def _grouped(table: Tensor) -> Tensor:
    """(dim, ...) to float32 (groups, ..., lanes), dense."""
    return table.unflatten(0, (-1, lanes())).movedim(1, -1).to(torch.float32, memory_format=torch.contiguous_format)


def block_plan(
    mask: Tensor | None, resets: Tensor | None, batch: int, seqlen: int, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Which tokens make up the blocks.

    Returns:
        int32 (batch, tiles * TILE), positions in memory, -1 for none; uint8 (batch, tiles * BLOCKS), 1 where the state
        is cleared in front of a block; int64 (batch, 2), the number of blocks and the tokens of the last one.
    """
    from genossm.kernels.lti.cpu import BLOCKS, SIZE, TILE, plan

    longest = seqlen if resets is None else seqlen + (SIZE - 1) * int(resets.sum(1).max())
    tiles = -(-longest // TILE)
    positions = torch.full((batch, tiles * TILE), -1, dtype=torch.int32)
    clear = torch.zeros(batch, tiles * BLOCKS, dtype=torch.uint8)
    blocks, tokens = torch.zeros(2, batch, dtype=torch.int64)
    marks = [NO_BYTES[None] if v is None else v.contiguous().view(torch.uint8) for v in (mask, resets)]
    arrays = [v.numpy() for v in (*marks, positions, clear, blocks, tokens)]
    plan(*arrays[:2], mask is not None, resets is not None, reverse, seqlen, *arrays[2:])
    return positions, clear, torch.stack([blocks, tokens], dim=1)


def _tasks(batch: int, groups: int) -> list[tuple[int, int, int]]:
    """(batch row, first group, groups) of every task: by shape alone."""
    from genossm.kernels.lti.cpu import GROUPS

    return [(b, g, min(GROUPS, groups - g)) for b in range(batch) for g in range(0, groups, GROUPS)]


def _lti_forward(
    u: Tensor,
    inflow: Tensor,
    outflow: Tensor,
    K: Tensor,
    step: Tensor,
    state: Tensor,
    positions: Tensor,
    clear: Tensor,
    ends: Tensor,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (0 where no token is read), the last state (batch, groups, dstate, 2, lanes), the states at tile borders."""
    from genossm.kernels.lti.cpu import TILE, forward_task

    batch, seqlen, dim = u.shape
    groups, dstate, width = state.shape[1], state.shape[2], state.shape[3] * state.shape[4]
    u = rows(u)
    y = torch.zeros(batch, seqlen, dim) if bool((positions >= 0).sum() < batch * seqlen) else torch.empty(u.shape)
    tiles = positions.shape[1] // TILE
    borders = torch.empty(batch, tiles, *state.shape[1:]) if save else torch.empty(0)
    last = state.clone()
    lu, ly = Layout(u, False), Layout(y, False)
    arrays = [flat(v) for v in (u, inflow, outflow, K, step, positions, clear, state.clone(), last)]
    arrays += [flat(borders if save else NONE), flat(y)]
    counts = ends.tolist()
    plan = _tasks(batch, groups)

    def task(index: int) -> None:
        b, group, count = plan[index]
        channel, share = group * lanes(), dstate * width
        forward_task(
            *arrays, lu.at(b, channel), lu.step, ly.at(b, channel), ly.step, b * positions.shape[1],
            b * clear.shape[1], *counts[b], group, count, dstate, save,
            (b * tiles * groups + group) * share, groups * share, (b * groups + group) * share,
        )  # fmt: skip

    threads.run(task, len(plan))
    return y, last, borders


def _lti_backward(
    dy: Tensor,
    dlast: Tensor,
    u: Tensor,
    inflow: Tensor,
    outflow: Tensor,
    K: Tensor,
    step: Tensor,
    positions: Tensor,
    clear: Tensor,
    ends: Tensor,
    borders: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, the four tables and the initial state."""
    from genossm.kernels.lti.cpu import TILE, backward_task

    batch, seqlen = u.shape[:2]
    groups, dstate, size = inflow.shape[0], inflow.shape[1], inflow.shape[3]
    u, dy, dlast = rows(u), rows(dy), dlast.contiguous()
    du = torch.zeros(u.shape) if bool((positions >= 0).sum() < batch * seqlen) else torch.empty(u.shape)
    shares = [torch.zeros(batch, *table.shape) for table in (inflow, outflow, K, step)]
    counts = ends.tolist()
    initial = torch.zeros_like(dlast)
    for b, (blocks, _) in enumerate(counts):
        if blocks == 0:
            initial[b] = dlast[b]
    tiles = positions.shape[1] // TILE
    lu, ly, lg = Layout(u, False), Layout(dy, False), Layout(du, False)
    arrays = [flat(v) for v in (u, dy, inflow, outflow, K, step, positions, clear, borders, dlast, initial, du)]
    arrays += [flat(v) for v in shares]
    plan = _tasks(batch, groups)

    def task(index: int) -> None:
        b, group, count = plan[index]
        channel, share = group * lanes(), dstate * 2 * lanes()
        backward_task(
            *arrays, lu.at(b, channel), lu.step, ly.at(b, channel), ly.step, lg.at(b, channel), lg.step,
            b * positions.shape[1], b * clear.shape[1], *counts[b], group, count, dstate,
            (b * tiles * groups + group) * share, groups * share, (b * groups + group) * share,
            (b * groups + group) * size * lanes(),
        )  # fmt: skip

    threads.run(task, len(plan))
    dinflow, doutflow, dK, dstep = (share.sum(0) for share in shares)
    return du, dinflow, doutflow, dK, dstep, initial


def _forward_fake(
    u: Tensor, inflow: Tensor, outflow: Tensor, K: Tensor, step: Tensor, state: Tensor, positions: Tensor,
    clear: Tensor, ends: Tensor, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    borders = u.new_empty(u.shape[0], positions.shape[1] // 128, *state.shape[1:]) if save else u.new_empty(0)
    return u.new_empty(u.shape), torch.empty_like(state), borders


def _backward_fake(
    dy: Tensor, dlast: Tensor, u: Tensor, inflow: Tensor, outflow: Tensor, K: Tensor, step: Tensor, positions: Tensor,
    clear: Tensor, ends: Tensor, borders: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    return u.new_empty(u.shape), *(v.new_empty(v.shape) for v in (inflow, outflow, K, step, dlast))


lti_forward = define("lti_cpu", _lti_forward, _forward_fake)
lti_backward = define("lti_cpu_backward", _lti_backward, _backward_fake)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    u, inflow, outflow, K, step, _state, positions, clear, ends, _save = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(u, inflow, outflow, K, step, positions, clear, ends, output[2])
    ctx.mark_non_differentiable(output[2])


def _backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, _borders: Tensor | None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # read once: a checkpoint gives them only once
    u, inflow = saved[:2]
    dy = torch.zeros_like(u) if dy is None else dy
    if dlast is None:
        dlast = u.new_zeros(u.shape[0], *inflow.shape[:3], inflow.shape[-1])
    return *lti_backward(dy, dlast, *saved), None, None, None, None


torch.library.register_autograd("genossm::lti_cpu", _backward, setup_context=_setup)


def lti_cpu(
    u: Tensor,
    lam: Tensor,
    C: Tensor,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.lti.lti`; float32 and complex64 on a CPU.

    Raises:
        ValueError: other dtypes or another device.
    """
    if u.device.type != "cpu" or u.dtype != torch.float32 or {lam.dtype, C.dtype} != {torch.complex64}:
        raise ValueError(
            f"the cpu backend of lti takes float32 and complex64 on a CPU, not {u.dtype} and {lam.dtype} on {u.device}"
        )
    batch, seqlen, dim = u.shape
    dstate = lam.shape[1]
    state = lam.new_zeros(batch, dim, dstate) if initial_state is None else initial_state
    if u.numel() == 0:
        return torch.zeros_like(u), state
    from genossm.kernels.lti.cpu import SIZE

    more, odd = -dim % lanes(), dstate % 2
    if more or odd:  # whole vectors and pairs of states: idle channels and an idle state
        u, state = F.pad(u, (0, more)), F.pad(state, (0, odd, 0, more))
        lam, C = F.pad(lam, (0, odd, 0, more)), F.pad(C, (0, odd, 0, more))
    made = tables(lam, C, SIZE)
    grouped = torch.view_as_real(state).unflatten(1, (-1, lanes())).movedim(2, -1).contiguous()
    resets = starts(segments, mask, reverse=reverse)
    save = torch.is_grad_enabled() and any(v.requires_grad for v in (u, *made, grouped))
    y, last, _ = lti_forward(u, *made, grouped, *block_plan(mask, resets, batch, seqlen, reverse), save)
    last = torch.view_as_complex(last.movedim(-1, 2).flatten(1, 2).contiguous())
    return y[..., :dim], last[:, :dim, :dstate]
