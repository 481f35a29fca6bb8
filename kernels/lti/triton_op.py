"""The Triton kernels of the time-invariant recurrence as a torch operator: launches, gradients, compiler shapes.

Complex numbers travel as a leading axis of two, real parts first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genossm.kernels import targets
from genossm.kernels.flat import rows
from genossm.kernels.library import GPU, define
from genossm.kernels.segments import starts
from genossm.kernels.targets import ScanBlocks, chunk_length

GROUP, CARRY_BLOCK, CARRY_WARPS = 4, 128, 4
LARGEST_STATE = 16
"""Complex states of a channel that fit the registers of a lane; more are taken in parts of this many."""

BLOCKS = {
    "sm_80": ScanBlocks(channels=32, warps=1, back_channels=32, back_warps=1, block=8),
    "sm_90": ScanBlocks(channels=32, warps=1, back_channels=32, back_warps=1, block=8),
    "sm_100": ScanBlocks(channels=32, warps=1, back_channels=32, back_warps=1, block=8),
    "gfx942": ScanBlocks(channels=64, warps=1, back_channels=64, back_warps=1, block=8),
    targets.INTERPRETER: ScanBlocks(channels=8, warps=1, back_channels=8, back_warps=1, block=4),
}


class Call:
    """What every kernel of one call is given: sizes, direction, decays, and the shape of the programs."""

    def __init__(self, u: Tensor, lam: Tensor, marks: Tensor | None, level: int, reverse: bool) -> None:
        self.batch, self.seqlen, self.dim = u.shape
        self.dstate = lam.shape[2]
        self.blocks = BLOCKS[targets.target(u.device)]
        self.chunk = chunk_length(self.seqlen)
        self.chunks = -(-self.seqlen // self.chunk)
        self.reverse = reverse
        self.marks = marks
        self.exponent = torch.complex(lam[0].double(), lam[1].double()).T
        self.decay = _pair(torch.exp(self.exponent))
        self.sizes = self.seqlen, self.dim, self.seqlen - 1 if reverse else 0
        self.shape = {
            "N": self.dstate, "MARKS": level, "STEP": -1 if reverse else 1, "CHUNK": self.chunk,
            "num_warps": self.blocks.warps, "num_stages": 1, "enable_fp_fusion": True,
        }  # fmt: skip

    def grid(self, channels: int) -> tuple[int, int, int]:
        return -(-self.dim // channels), self.chunks, self.batch

    def states(self, like: Tensor) -> Tensor:
        """Memory for a state a chunk."""
        return torch.empty(2, self.batch, self.chunks, self.dstate, self.dim, device=like.device, dtype=torch.float32)

    def powers(self, device: torch.device) -> Tensor:
        """What each chunk does to a state that enters it, (2, batch or 1, chunks, dstate, dim)."""
        pad = self.chunks * self.chunk - self.seqlen
        if self.marks is None:
            tokens = torch.full((1, self.chunks), self.chunk, device=device)
            tokens[:, -1] -= pad
            cut = torch.zeros_like(tokens, dtype=torch.bool)
        else:
            order = self.marks.flip(1) if self.reverse else self.marks
            order = torch.nn.functional.pad(order, (0, pad), value=1).view(self.batch, self.chunks, self.chunk)
            tokens, cut = (order & 1 == 0).sum(2), (order & 2 != 0).any(2)
        power = torch.exp(self.exponent * tokens[..., None, None])
        return _pair(torch.where(cut[..., None, None], 0, power))

    def carry(self, values: Tensor, initial: Tensor, backwards: bool) -> None:
        """Chunk ends to chunk entries in place, along the reading order or, conjugated, ``backwards``."""
        from genossm.kernels.lti.triton import lti_carry

        powers, size = self.powers(values.device), self.dstate * self.dim
        first, step = (self.chunks - 1, -1) if backwards else (0, 1)
        lti_carry[(-(-size // CARRY_BLOCK), self.batch)](
            values, powers, initial, values[0].numel(), self.chunks, size, first, step,
            0 if self.marks is None else self.chunks * size, powers[0].numel(),
            CONJUGATE=backwards, GROUP=GROUP, BLOCK=CARRY_BLOCK,
            num_warps=CARRY_WARPS, num_stages=1, enable_fp_fusion=True,
        )  # fmt: skip


def _pair(value: Tensor) -> Tensor:
    """Real and imaginary parts in float32, stacked in front."""
    return torch.stack([value.real, value.imag]).float().contiguous()


def forward(
    u: Tensor, lam: Tensor, C: Tensor, state: Tensor, marks: Tensor | None, level: int, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state (2, batch, dim, dstate), the entry states of the chunks (2, batch, chunks, dstate, dim)."""
    from genossm.kernels.lti.triton import lti_local, lti_output

    call = Call(u, lam, marks, level, reverse)
    u, C = rows(u), C.mT.contiguous()
    initial = state.mT.contiguous()
    entries = call.states(u)
    grid = call.grid(call.blocks.channels)
    scalars, shape = (*call.sizes, *u.stride()[:2]), {**call.shape, "BD": call.blocks.channels}
    if call.chunks > 1:
        lti_local[grid](u, call.decay, marks, None, entries, entries[0].numel(), *scalars, T=0, **shape)
        call.carry(entries, initial, backwards=False)
    else:
        entries.copy_(initial[:, :, None])
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    last = torch.empty_like(initial)
    lti_output[grid](u, call.decay, C, marks, entries, y, last, *scalars, **shape)
    return y, last.mT.contiguous(), entries


def backward(
    dy: Tensor, dlast: Tensor, u: Tensor, lam: Tensor, C: Tensor, marks: Tensor | None, level: int, entries: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of u, lam, C and the initial state."""
    from genossm.kernels.lti.triton import lti_adjoint, lti_backward, lti_local

    call = Call(u, lam, marks, level, reverse)
    u, dy, C = rows(u), rows(dy), C.mT.contiguous()
    grid, block = call.grid(call.blocks.channels), call.blocks.block
    shape = {**call.shape, "BD": call.blocks.channels}
    tiles = -(-call.seqlen // block)
    blocks = torch.empty(2, call.batch, tiles, call.dstate, call.dim, device=u.device, dtype=torch.float32)
    lti_local[grid](
        u, call.decay, marks, entries, blocks, blocks[0].numel(), *call.sizes, *u.stride()[:2], T=block, **shape
    )  # fmt: skip
    adjoint = call.states(u)
    half = adjoint[0].numel()
    incoming = dlast.float().mT.contiguous()
    if call.chunks > 1:
        lti_adjoint[grid](dy, call.decay, C, marks, adjoint, half, *call.sizes, *dy.stride()[:2], **shape)
        call.carry(adjoint, incoming, backwards=True)
    else:
        adjoint.copy_(incoming[:, :, None])
    du = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    dw, dC, dinitial = call.states(u), call.states(u), torch.empty_like(incoming)
    lti_backward[call.grid(call.blocks.back_channels)](
        u, call.decay, C, marks, dy, blocks, adjoint, du, dw, dC, dinitial, blocks[0].numel(), half,
        *call.sizes, *u.stride()[:2], *dy.stride()[:2],
        T=block, **{**shape, "BD": call.blocks.back_channels, "num_warps": call.blocks.back_warps},
    )  # fmt: skip
    (wr, wi), (gr, gi) = call.decay, dw.sum((1, 2))
    dlam = torch.stack([wr * gr + wi * gi, wr * gi - wi * gr])
    return du, dlam.mT.contiguous(), dC.sum((1, 2)).mT.contiguous(), dinitial.mT.contiguous()


def _forward_fake(
    u: Tensor, lam: Tensor, C: Tensor, state: Tensor, marks: Tensor | None, level: int, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    chunks = -(-u.shape[1] // chunk_length(u.shape[1]))
    return u.new_empty(u.shape), state.new_empty(state.shape), state.new_empty(2, u.shape[0], chunks, *lam.mT.shape[1:])


def _backward_fake(
    dy: Tensor, dlast: Tensor, u: Tensor, lam: Tensor, C: Tensor, marks: Tensor | None, level: int, entries: Tensor,
    reverse: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(v.new_empty(v.shape) for v in (u, lam, C, dlast))


lti_forward = define("lti_triton", forward, _forward_fake, GPU)
lti_backward = define("lti_triton_backward", backward, _backward_fake, GPU)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    u, lam, C, _state, marks, level, reverse = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(u, lam, C, marks, output[2])
    ctx.options = level, reverse
    ctx.mark_non_differentiable(output[2])


def _backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, _entries: Tensor | None) -> tuple[Any, ...]:
    u, lam, C, marks, entries = ctx.saved_tensors
    level, reverse = ctx.options
    dy = torch.zeros_like(u) if dy is None else dy
    dlast = lam.new_zeros(2, u.shape[0], *lam.shape[1:]) if dlast is None else dlast
    du, dlam, dC, dinitial = lti_backward(dy, dlast, u, lam, C, marks, level, entries, reverse)
    return du, dlam, dC, dinitial, None, None, None


torch.library.register_autograd("genossm::lti_triton", _backward, setup_context=_setup)


def lti_triton(
    u: Tensor,
    lam: Tensor,
    C: Tensor,
    *,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.lti.lti`; lam, C and states are complex64.

    Raises:
        ValueError: not a GPU (nor Triton's interpreter), or a dtype that the kernels do not take.
    """
    targets.target(u.device)
    targets.check("lti", u=u)
    if lam.dtype != torch.complex64 or C.dtype != torch.complex64:
        raise ValueError(f"the triton backend of lti takes complex64; lam is {lam.dtype}, C {C.dtype}")
    state = lam.new_zeros(u.shape[0], *lam.shape) if initial_state is None else initial_state
    if u.numel() == 0:
        return torch.zeros_like(u), state
    marks, level = targets.marks(mask, starts(segments, mask, reverse=reverse))
    ys, lasts = [], []
    for n in range(0, lam.shape[1], LARGEST_STATE):
        part = slice(n, n + LARGEST_STATE)
        pairs = [torch.view_as_real(v[..., part]).movedim(-1, 0) for v in (lam, C, state)]
        y, last, _ = lti_forward(u, *pairs, marks, level, reverse)
        ys.append(y)
        lasts.append(torch.complex(last[0], last[1]))
    y = ys[0] if len(ys) == 1 else torch.stack([y.float() for y in ys]).sum(0).to(u.dtype)
    return y, torch.cat(lasts, dim=-1)
