"""The Triton kernels of Mamba-2's scan as a torch operator: launches, gradients, shapes for the compiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels import targets
from genossm.kernels.flat import rows
from genossm.kernels.library import GPU, define
from genossm.kernels.segments import starts
from genossm.kernels.ssd.reference import skip_and_gate, time_step

GROUP, CARRY_BLOCK, CARRY_WARPS = 8, 256, 4
LARGEST_STATE = 64
"""States that one program holds; more are taken in parts of this many."""


@dataclass(frozen=True)
class Blocks:
    """Programs of a GPU.

    Attributes:
        chunk: tokens of a chunk, a power of two, at least 16.
        warps, back_warps: of a program in the forward kernels, and in the backward kernel.
        back_states: states that the backward kernel is made for, LARGEST_STATE or more; with fewer registers spill.
    """

    chunk: int
    warps: int
    back_warps: int
    back_states: int = 64


BLOCKS = {
    "sm_80": Blocks(chunk=32, warps=4, back_warps=8),
    "sm_90": Blocks(chunk=32, warps=4, back_warps=8),
    "sm_100": Blocks(chunk=32, warps=4, back_warps=8),
    "gfx942": Blocks(chunk=32, warps=4, back_warps=4),
    targets.INTERPRETER: Blocks(chunk=16, warps=1, back_warps=1),
}


class Call:
    """What every kernel of one call is given: sizes, direction, and the decays of tokens and chunks."""

    def __init__(self, x: Tensor, delta: Tensor, log_decay: Tensor, B: Tensor, reset: Tensor | None, reverse: bool):
        self.batch, self.seqlen, self.heads, self.headdim = x.shape
        self.groups, self.dstate = B.shape[2:]
        self.blocks = BLOCKS[targets.target(x.device)]
        self.chunks = -(-self.seqlen // self.blocks.chunk)
        self.reverse = reverse
        self.sizes = self.seqlen, self.heads, self.heads // self.groups, self.headdim, self.dstate
        self.first = self.seqlen - 1 if reverse else 0
        self.delta = self.in_order(delta.float())
        self.cum = self.in_order(log_decay.float()).cumsum(2)
        self.entry, self.leaving = torch.exp(self.cum), torch.exp(self.cum[:, :, -1:] - self.cum)
        self.cuts: Tensor | None = None
        if reset is not None:
            cuts = self.in_order(reset[..., None].to(torch.int32)).cumsum(2, dtype=torch.int32)
            self.entry = self.entry * (cuts == 0)
            self.leaving = self.leaving * (cuts == cuts[:, :, -1:])
            self.cuts = cuts.contiguous()
        self.keep = self.entry[:, :, -1].contiguous()
        self.shape = {
            "STEP": -1 if reverse else 1, "Q": self.blocks.chunk, "P": _block(self.headdim), "N": _block(self.dstate),
            "num_warps": self.blocks.warps, "num_stages": 1, "enable_fp_fusion": True,
        }  # fmt: skip

    def in_order(self, value: Tensor) -> Tensor:
        """(batch, seqlen, n) in memory order to (batch, chunks, chunk, n) in reading order, zeros behind."""
        value = value.flip(1) if self.reverse else value
        pad = self.chunks * self.blocks.chunk - self.seqlen
        return F.pad(value, (0, 0, 0, pad)).unflatten(1, (self.chunks, self.blocks.chunk)).contiguous()

    def in_memory(self, value: Tensor) -> Tensor:
        """The inverse of :meth:`in_order`."""
        value = value.flatten(1, 2)[:, : self.seqlen]
        return value.flip(1) if self.reverse else value.contiguous()

    def per_token(self) -> Tensor:
        """Memory for one number a token and head."""
        return torch.empty_like(self.delta)

    def gather(self, v: Tensor, weight: Tensor, B: Tensor) -> Tensor:
        """sum over each chunk's tokens of weight B v^T."""
        from genossm.kernels.ssd.triton import ssd_gather

        shape = self.batch, self.chunks, self.heads, self.dstate, self.headdim
        out = torch.empty(shape, device=v.device, dtype=torch.float32)
        ssd_gather[self.chunks, self.heads, self.batch](
            v, weight, B, out, *self.sizes, self.first, *v.stride()[:3], *B.stride()[:3], **self.shape
        )
        return out

    def carry(self, values: Tensor, initial: Tensor, backwards: bool) -> Tensor:
        """Chunk ends to chunk entries in place, along the reading order or ``backwards``; what is left at the end."""
        from genossm.kernels.ssd.triton import ssd_carry

        size = self.dstate * self.headdim
        first, step = (self.chunks - 1, -1) if backwards else (0, 1)
        final = torch.empty(initial.shape, device=initial.device, dtype=torch.float32)
        ssd_carry[-(-size // CARRY_BLOCK), self.heads, self.batch](
            values, self.keep, initial, final, self.chunks, self.heads, size, first, step,
            GROUP=GROUP, BLOCK=CARRY_BLOCK, num_warps=CARRY_WARPS, num_stages=1, enable_fp_fusion=True,
        )  # fmt: skip
        return final


def _block(size: int) -> int:
    """The block that holds ``size`` rows or columns of a matrix product."""
    return max(16, targets.power_of_two(size))


def forward(
    x: Tensor, delta: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor,
    reset: Tensor | None, reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the last state (batch, heads, dstate, headdim), the entry states of the chunks."""
    from genossm.kernels.ssd.triton import ssd_output

    call = Call(x, delta, log_decay, B, reset, reverse)
    x, B, C = rows(x), rows(B), rows(C)
    states = call.gather(x, call.delta * call.leaving, B)
    last = call.carry(states, state.float().contiguous(), backwards=False)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    ssd_output[call.chunks, call.heads, call.batch](
        x, call.delta, call.cum, call.entry, call.cuts, B, C, D, states, y, *call.sizes, call.first,
        *x.stride()[:3], *B.stride()[:3], *C.stride()[:3],
        SKIP=D is not None, CUT=reset is not None, **call.shape,
    )  # fmt: skip
    return y, last, states


def backward(
    dy: Tensor, dlast: Tensor, x: Tensor, delta: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    reset: Tensor | None, states: Tensor, reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, delta, log_decay, B, C, D (zero without one) and the initial state."""
    from genossm.kernels.ssd.triton import ssd_backward

    call = Call(x, delta, log_decay, B, reset, reverse)
    x, B, C, dy = rows(x), rows(B), rows(C), rows(dy)
    adjoint = call.gather(dy, call.entry, C)
    initial = call.carry(adjoint, dlast.float().contiguous(), backwards=True)
    float32: Any = {"device": x.device, "dtype": torch.float32}
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    ddelta, crossing, outflow, inflow = (call.per_token() for _ in range(4))
    kept = torch.empty_like(call.keep)
    dB, dC = torch.empty(2, *x.shape[:3], call.dstate, **float32)
    dD = torch.empty(call.batch, call.chunks, *x.shape[2:], **float32)
    ssd_backward[call.chunks, call.heads, call.batch](
        x, call.delta, call.cum, call.entry, call.leaving, call.keep, call.cuts, B, C, D, dy, states, adjoint,
        dx, ddelta, crossing, outflow, inflow, kept, dB, dC, dD, *call.sizes, call.first,
        *x.stride()[:3], *B.stride()[:3], *C.stride()[:3], *dy.stride()[:3],
        SKIP=D is not None, CUT=reset is not None,
        **{**call.shape, "N": call.blocks.back_states, "num_warps": call.blocks.back_warps},
    )  # fmt: skip
    before = F.pad(inflow.cumsum(2)[:, :, :-1], (0, 0, 1, 0))
    dlog = crossing + outflow.flip(2).cumsum(2).flip(2) + before + kept[:, :, None]
    dB, dC = (v.unflatten(2, (call.groups, -1)).sum(3).to(B.dtype) for v in (dB, dC))
    grad_D = torch.zeros(x.shape[2:], **float32) if D is None else dD.sum((0, 1))
    ddelta, dlog = call.in_memory(ddelta), call.in_memory(dlog)
    return dx, ddelta.to(delta.dtype), dlog.to(log_decay.dtype), dB, dC, grad_D, initial


def _forward_fake(
    x: Tensor, delta: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor,
    reset: Tensor | None, reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    chunk = BLOCKS[targets.INTERPRETER if x.device.type == "cpu" else "sm_90"].chunk
    states = state.new_empty(x.shape[0], -(-x.shape[1] // chunk), *state.shape[1:], dtype=torch.float32)
    return x.new_empty(x.shape), state.new_empty(state.shape, dtype=torch.float32), states


def _backward_fake(
    dy: Tensor, dlast: Tensor, x: Tensor, delta: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    reset: Tensor | None, states: Tensor, reverse: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    dD = x.new_empty(x.shape[2:], dtype=torch.float32)
    return *(v.new_empty(v.shape) for v in (x, delta, log_decay, B, C)), dD, dlast.new_empty(dlast.shape)


ssd_forward = define("ssd_triton", forward, _forward_fake, GPU)
ssd_backward = define("ssd_triton_backward", backward, _backward_fake, GPU)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, delta, log_decay, B, C, D, _state, reset, reverse = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, delta, log_decay, B, C, D, reset, output[2])
    ctx.reverse = reverse
    ctx.mark_non_differentiable(output[2])


def _backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, _states: Tensor | None) -> tuple[Any, ...]:
    x, delta, log_decay, B, C, D, reset, states = ctx.saved_tensors
    dy = torch.zeros_like(x) if dy is None else dy
    dlast = states.new_zeros(x.shape[0], *states.shape[2:]) if dlast is None else dlast
    gradients = ssd_backward(dy, dlast, x, delta, log_decay, B, C, D, reset, states, ctx.reverse)
    dx, ddelta, dlog, dB, dC, dD, initial = gradients
    return dx, ddelta, dlog, dB, dC, None if D is None else dD, initial, None, None


torch.library.register_autograd("genossm::ssd_triton", _backward, setup_context=_setup)


def ssd_triton(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, D: Tensor | None = None, z: Tensor | None = None,
    dt_bias: Tensor | None = None, dt_softplus: bool = True, dt_limit: tuple[float, float] | None = None,
    initial_state: Tensor | None = None, mask: Tensor | None = None, segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Arguments and results as :func:`genossm.kernels.ssd.ssd`; time steps, decays and the state are float32.

    Raises:
        ValueError: not a GPU (nor Triton's interpreter), or a dtype that the kernels do not take.
    """
    targets.target(x.device)
    targets.check("ssd", x=x, dt=dt, A=A, B=B, C=C, D=D, z=z, dt_bias=dt_bias, initial_state=initial_state)
    batch, _, heads, headdim = x.shape
    dstate = B.shape[3]
    if x.numel() == 0:
        empty = x.new_zeros(batch, heads, headdim, dstate, dtype=torch.float32)
        return torch.zeros_like(x), empty if initial_state is None else initial_state.float()
    bias = None if dt_bias is None else dt_bias.float()
    delta = time_step(dt.float(), bias, dt_softplus, dt_limit, mask)
    skip = None if D is None else (D if D.dim() == 2 else D[:, None].expand(heads, headdim)).float().contiguous()
    state = delta.new_zeros(batch, heads, dstate, headdim) if initial_state is None else initial_state.float().mT
    resets = starts(segments, mask, reverse=reverse)
    B, C = B.to(x.dtype), C.to(x.dtype)
    ys, lasts = [], []
    for n in range(0, dstate, LARGEST_STATE):
        part = slice(n, n + LARGEST_STATE)
        y, last, _ = ssd_forward(
            x, delta, delta * A.float(), B[..., part], C[..., part], skip if n == 0 else None,
            state[:, :, part].contiguous(), resets, reverse,
        )  # fmt: skip
        ys.append(y)
        lasts.append(last)
    y = ys[0] if len(ys) == 1 else torch.stack([y.float() for y in ys]).sum(0).to(x.dtype)
    return skip_and_gate(y, x, None, z), torch.cat(lasts, dim=2).mT
