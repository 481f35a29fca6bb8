"""The Triton kernels of the selective scan as a torch operator: launches, gradients, shapes for the compiler."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels import targets
from genossm.kernels.flat import rows
from genossm.kernels.library import GPU, define
from genossm.kernels.segments import starts
from genossm.kernels.targets import ScanBlocks, chunk_length

LN2 = 0.6931471805599453
GROUP, CARRY_BLOCK, CARRY_WARPS = 8, 128, 4
LARGEST_STATE = 32
"""States of a channel that fit the registers of a lane; more are taken in parts of this many."""

BLOCKS = {
    "sm_80": ScanBlocks(channels=64, warps=1, back_channels=32, back_warps=1, block=8),
    "sm_90": ScanBlocks(channels=64, warps=1, back_channels=32, back_warps=1, block=8),
    "sm_100": ScanBlocks(channels=64, warps=1, back_channels=32, back_warps=1, block=8),
    "gfx942": ScanBlocks(channels=64, warps=1, back_channels=64, back_warps=1, block=8),
    targets.INTERPRETER: ScanBlocks(channels=8, warps=1, back_channels=8, back_warps=1, block=4),
}


class Call:
    """What every kernel of one call is given: sizes, direction, strides, and the shape of the programs."""

    def __init__(self, u: Tensor, A: Tensor, level: int, softplus: bool, reverse: bool) -> None:
        self.batch, self.seqlen, self.dim = u.shape
        self.dstate = A.shape[1]
        self.blocks = BLOCKS[targets.target(u.device)]
        self.chunk = chunk_length(self.seqlen)
        self.chunks = -(-self.seqlen // self.chunk)
        self.first = self.seqlen - 1 if reverse else 0
        self.a = (A.float() / LN2).T.contiguous()
        self.constants = {"N": self.dstate, "SOFTPLUS": softplus, "MARKS": level, "CHUNK": self.chunk}
        self.constants["STEP"] = -1 if reverse else 1
        self.options = {"num_warps": self.blocks.warps, "num_stages": 1, "enable_fp_fusion": True}

    def grid(self, channels: int) -> tuple[int, int, int]:
        """Channel blocks, chunks, batch rows: neighbours share the rows of B and C."""
        return (-(-self.dim // channels), self.chunks, self.batch)

    def sizes(self) -> tuple[int, int, int]:
        return self.seqlen, self.dim, self.first

    def states(self, like: Tensor) -> Tensor:
        """Memory for a state a chunk."""
        return torch.empty(self.batch, self.chunks, self.dstate, self.dim, device=like.device, dtype=torch.float32)

    def carry(self, values: Tensor, sums: Tensor, initial: Tensor, backwards: bool) -> None:
        """Chunk ends to chunk entries in place, along the reading order or ``backwards``."""
        from genossm.kernels.selective_scan.triton import scan_carry

        size = self.dstate * self.dim
        first, step = (self.chunks - 1, -1) if backwards else (0, 1)
        scan_carry[(-(-size // CARRY_BLOCK), self.batch)](
            values, sums, self.a, initial, self.chunks, size, self.dim, first, step,
            GROUP=GROUP, BLOCK=CARRY_BLOCK, **{**self.options, "num_warps": CARRY_WARPS},
        )  # fmt: skip


def _strides(*tensors: Tensor | None) -> list[int]:
    """Batch and token stride of each tensor, one after another."""
    return [s for v in tensors for s in ((0, 0) if v is None else v.stride()[:2])]


def forward(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None, dt_bias: Tensor,
    state: Tensor, marks: Tensor | None, level: int, softplus: bool, reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the last state (batch, dim, dstate), the entry states of the chunks (batch, chunks, dstate, dim)."""
    from genossm.kernels.selective_scan.triton import scan_local, scan_output

    call = Call(u, A, level, softplus, reverse)
    u, dt, B, C, z = rows(u), rows(dt), B.contiguous(), C.contiguous(), None if z is None else rows(z)
    initial = state.float().mT.contiguous()
    entries = call.states(u)
    grid = call.grid(call.blocks.channels)
    shape = {**call.constants, "BD": call.blocks.channels, **call.options}
    if call.chunks > 1:
        sums = torch.empty(call.batch, call.chunks, call.dim, device=u.device, dtype=torch.float32)
        scan_local[grid](
            u, dt, call.a, dt_bias, B, marks, entries, sums, *call.sizes(), *_strides(u, dt), **shape
        )  # fmt: skip
        call.carry(entries, sums, initial, backwards=False)
    else:
        entries.copy_(initial[:, None])
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    last = torch.empty_like(initial)
    scan_output[grid](
        u, dt, call.a, dt_bias, B, C, D, z, marks, entries, y, last,
        *call.sizes(), *_strides(u, dt, z, y), GATE=z is not None, **shape,
    )  # fmt: skip
    return y, last.mT.contiguous(), entries


def backward(
    dy: Tensor, dlast: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None,
    dt_bias: Tensor, marks: Tensor | None, level: int, entries: Tensor, softplus: bool, reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of u, dt, A, B, C, D, z (empty without z), dt_bias and the initial state."""
    from genossm.kernels.selective_scan.triton import adjoint_local, scan_backward

    call = Call(u, A, level, softplus, reverse)
    u, dt, dy, z = rows(u), rows(dt), rows(dy), None if z is None else rows(z)
    B, C = B.contiguous(), C.contiguous()
    batch, seqlen, dim, dstate = call.batch, call.seqlen, call.dim, call.dstate
    shape = {**call.constants, "GATE": z is not None, "T": call.blocks.block, **call.options}
    scalars = (*call.sizes(), *_strides(u, dt, z, dy))
    float32: Any = {"device": u.device, "dtype": torch.float32}
    blocks = torch.empty(batch, -(-seqlen // call.blocks.block), dstate, dim, **float32)
    adjoint, sums = call.states(u), torch.empty(batch, call.chunks, dim, **float32)
    adjoint_local[call.grid(call.blocks.channels)](
        u, dt, call.a, dt_bias, B, C, z, marks, entries, dy, blocks, adjoint, sums,
        *scalars, BD=call.blocks.channels, **shape,
    )  # fmt: skip
    incoming = dlast.float().mT.contiguous()
    if call.chunks > 1:
        call.carry(adjoint, sums, incoming, backwards=True)
    else:
        adjoint.copy_(incoming[:, None])
    grid = call.grid(call.blocks.back_channels)
    du, ddt = (torch.empty(v.shape, dtype=v.dtype, device=v.device) for v in (u, dt))
    dz = torch.empty(0 if z is None else u.shape, dtype=u.dtype if z is None else z.dtype, device=u.device)
    dA = call.states(u)
    dB, dC = (torch.empty(grid[0], batch, seqlen, dstate, **float32) for _ in range(2))
    dD, dbias = (torch.empty(batch, call.chunks, dim, **float32) for _ in range(2))
    dinitial = torch.empty(batch, dstate, dim, **float32)
    scan_backward[grid](
        u, dt, call.a, dt_bias, B, C, D, z, marks, dy, blocks, adjoint,
        du, ddt, dz, dA, dB, dC, dD, dbias, dinitial,
        *scalars, BD=call.blocks.back_channels, **{**shape, "num_warps": call.blocks.back_warps},
    )  # fmt: skip
    dA, dB, dC = dA.sum((0, 1)).T.contiguous(), dB.sum(0).to(B.dtype), dC.sum(0).to(C.dtype)
    return du, ddt, dA, dB, dC, dD.sum((0, 1)), dz, dbias.sum((0, 1)), dinitial.mT.contiguous()


def _forward_fake(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None, dt_bias: Tensor,
    state: Tensor, marks: Tensor | None, level: int, dt_softplus: bool, reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    chunks = -(-u.shape[1] // chunk_length(u.shape[1]))
    entries = u.new_empty(u.shape[0], chunks, A.shape[1], A.shape[0], dtype=torch.float32)
    return u.new_empty(u.shape), torch.empty_like(state, memory_format=torch.contiguous_format), entries


def _backward_fake(
    dy: Tensor, dlast: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None,
    dt_bias: Tensor, marks: Tensor | None, level: int, entries: Tensor, dt_softplus: bool, reverse: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    dz = u.new_empty(0) if z is None else z.new_empty(z.shape)
    return *(v.new_empty(v.shape) for v in (u, dt, A, B, C, D)), dz, *(v.new_empty(v.shape) for v in (dt_bias, dlast))


scan_forward = define("selective_scan_triton", forward, _forward_fake, GPU)
scan_backward = define("selective_scan_triton_backward", backward, _backward_fake, GPU)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    u, dt, A, B, C, D, z, dt_bias, _state, marks, level, dt_softplus, reverse = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(u, dt, A, B, C, D, z, dt_bias, marks, output[2])
    ctx.options = (level, dt_softplus, reverse)
    ctx.mark_non_differentiable(output[2])


def _backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, _entries: Tensor | None) -> tuple[Any, ...]:
    u, dt, A, B, C, D, z, dt_bias, marks, entries = ctx.saved_tensors
    level, *options = ctx.options
    dy = torch.zeros_like(u) if dy is None else dy
    dlast = A.new_zeros(u.shape[0], *A.shape) if dlast is None else dlast
    gu, gdt, gA, gB, gC, gD, gz, gbias, initial = scan_backward(
        dy, dlast, u, dt, A, B, C, D, z, dt_bias, marks, level, entries, *options
    )
    return gu, gdt, gA, gB, gC, gD, None if z is None else gz, gbias, initial, *([None] * 4)


torch.library.register_autograd("genossm::selective_scan_triton", _backward, setup_context=_setup)


def selective_scan_triton(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, D: Tensor | None = None, z: Tensor | None = None,
    dt_bias: Tensor | None = None, dt_softplus: bool = True, initial_state: Tensor | None = None,
    mask: Tensor | None = None, segments: Tensor | None = None, reverse: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Arguments and results as :func:`genossm.kernels.selective_scan.selective_scan`; the state is float32.

    Raises:
        ValueError: not a GPU (nor Triton's interpreter), or a dtype that the kernels do not take.
    """
    targets.target(u.device)
    targets.check(
        "selective_scan", u=u, dt=dt, A=A, B=B, C=C, D=D, z=z, dt_bias=dt_bias, initial_state=initial_state
    )  # fmt: skip
    batch, _, dim = u.shape
    zeros = torch.zeros(dim, device=u.device, dtype=torch.float32)
    D, dt_bias = (zeros if v is None else v.float().contiguous() for v in (D, dt_bias))
    A = A.float()
    state = A.new_zeros(batch, *A.shape) if initial_state is None else initial_state.float()
    if u.numel() == 0:
        return torch.zeros_like(u), state
    marks, level = targets.marks(mask, starts(segments, mask, reverse=reverse))
    parts = range(0, A.shape[1], LARGEST_STATE)
    if len(parts) == 1:
        y, last, _ = scan_forward(u, dt, A, B, C, D, z, dt_bias, state, marks, level, dt_softplus, reverse)
        return y, last
    ys, lasts = [], []
    for n in parts:
        part = slice(n, n + LARGEST_STATE)
        y, last, _ = scan_forward(
            u, dt, A[:, part], B[..., part], C[..., part], D if n == 0 else zeros, None, dt_bias, state[..., part],
            marks, level, dt_softplus, reverse,
        )  # fmt: skip
        ys.append(y.float())
        lasts.append(last)
    y = torch.stack(ys).sum(0)
    return (y if z is None else y * F.silu(z.float())).to(u.dtype), torch.cat(lasts, dim=-1)
