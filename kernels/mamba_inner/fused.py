"""The inside of a Mamba block on a CPU, float32, as one step of the graph.

Kept for backward: xz itself, the ungated sum, and what is small: the columns of ``x_proj`` and the states at tile
borders. That is one (batch, seqlen, d_inner) tensor beside xz, whatever the number of directions; the convolution and
the time steps are computed again. Step by step the graph would keep three for each direction and four for sum and gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from genossm.kernels.causal_conv1d.op import conv_backward, conv_forward, tokens_since_start
from genossm.kernels.causal_conv1d.reference import final_taps
from genossm.kernels.flat import lanes
from genossm.kernels.mamba_inner.reference import Direction
from genossm.kernels.segments import starts
from genossm.kernels.selective_scan.op import scan_backward, scan_forward

_TENSORS = 9
"""Tensors of a direction, in the order of :class:`Direction`, ``reverse`` left out."""


def fits(xz: Tensor, directions: Sequence[Direction]) -> bool:
    """Whether :func:`mamba_inner_fused` takes these tensors: float32 on a CPU, whole SIMD vectors, a token at least."""
    if xz.device.type != "cpu" or xz.dtype != torch.float32 or xz.numel() == 0:
        return False
    return all(
        core.A.shape[0] % lanes() == 0 and core.A.shape[1] % 2 == 0 and core.A.dtype == torch.float32
        for core in directions
    )


class _Marks:
    """Padding and packing of one reading direction, as the CPU operators take them."""

    def __init__(self, mask: Tensor | None, segments: Tensor | None, reverse: bool, width: int) -> None:
        resets = starts(segments, mask, reverse=reverse)
        self.mask = None if mask is None else mask.contiguous().view(torch.uint8)
        self.reset = None if resets is None else resets.contiguous().view(torch.uint8)
        self.since = None if segments is None else tokens_since_start(segments, mask, width - 1, reverse)


class _Core:
    """One direction inside the fused step."""

    def __init__(
        self, tensors: Sequence[Tensor | None], reverse: bool, mask: Tensor | None, segments: Tensor | None
    ) -> None:
        weight, bias, x_proj, dt_proj, dt_bias, A, D, taps, state = tensors
        assert weight is not None and x_proj is not None and dt_proj is not None  # noqa: PT018
        assert dt_bias is not None and A is not None and D is not None  # noqa: PT018
        self.weight, self.x_proj, self.dt_proj, self.dt_bias, self.A, self.D = weight, x_proj, dt_proj, dt_bias, A, D
        self.bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
        self.taps = taps.flip(1) if taps is not None and reverse else taps
        self.state, self.reverse = state, reverse
        self.rank = dt_proj.shape[1]
        self.marks = _Marks(mask, segments, reverse, weight.shape[1])

    def convolve(self, x: Tensor) -> Tensor:
        marks = self.marks
        u: Tensor = conv_forward(x, self.weight, self.bias, self.taps, marks.mask, marks.since, True, self.reverse)
        return u

    def scan_inputs(self, u: Tensor, columns: Tensor) -> tuple[Tensor, ...]:
        rank, end = self.rank, columns.shape[-1]
        middle = (rank + end) // 2
        dt = F.linear(columns[..., :rank], self.dt_proj)
        return u, dt, self.A, columns[..., rank:middle], columns[..., middle:], self.D, None, self.dt_bias  # type: ignore[return-value]

    def forward(self, x: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """y, the last state, the columns of ``x_proj``, and the states at tile borders."""
        u = self.convolve(x)
        columns = F.linear(u, self.x_proj)
        state = x.new_zeros(x.shape[0], *self.A.shape) if self.state is None else self.state
        y, last, borders = scan_forward(
            *self.scan_inputs(u, columns), state, self.marks.mask, self.marks.reset, True, self.reverse, save
        )
        return y, last, columns, borders

    def backward(
        self, x: Tensor, dy: Tensor, dlast: Tensor | None, columns: Tensor, borders: Tensor
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The gradients of x and of the nine tensors."""
        u = self.convolve(x)
        dlast = x.new_zeros(x.shape[0], *self.A.shape) if dlast is None else dlast
        du, ddt, dA, dB, dC, dD, _, ddt_bias, dstate = scan_backward(
            dy, dlast, *self.scan_inputs(u, columns), self.marks.mask, self.marks.reset, borders, True, self.reverse
        )
        dcolumns = torch.cat([ddt @ self.dt_proj, dB, dC], dim=-1).flatten(0, 1)
        ddt_proj = ddt.flatten(0, 1).T @ columns[..., : self.rank].flatten(0, 1)
        dx_proj = dcolumns.T @ u.flatten(0, 1)
        du.flatten(0, 1).addmm_(dcolumns, self.x_proj)
        marks = self.marks
        dx, dweight, dbias, dtaps = conv_backward(
            du, x, self.weight, self.bias, self.taps, marks.mask, marks.since, True, self.reverse
        )
        carried = None if self.taps is None else dtaps.flip(1) if self.reverse else dtaps
        begun = None if self.state is None else dstate
        return dx, [dweight, dbias, dx_proj, ddt_proj, ddt_bias, dA, dD, carried, begun]


class _Inner(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        xz: Tensor,
        mask: Tensor | None,
        segments: Tensor | None,
        reverses: tuple[bool, ...],
        save: bool,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        x, z = xz.chunk(2, dim=-1)
        total, lasts, kept = None, [], []
        for index, reverse in enumerate(reverses):
            core = _Core(tensors[index * _TENSORS : (index + 1) * _TENSORS], reverse, mask, segments)
            y, last, columns, borders = core.forward(x, save)
            total = y if total is None else total.add_(y)
            lasts.append(last)
            kept += [columns, borders]
        assert total is not None
        if not save:
            return total.mul_(F.silu(z)), *lasts
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(xz, mask, segments, total, *tensors, *kept)
        ctx.reverses = reverses
        return total * F.silu(z), *lasts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dgated: Tensor | None, *dlasts: Tensor | None) -> tuple[Any, ...]:
        xz, mask, segments, total, *rest = ctx.saved_tensors
        count = len(ctx.reverses)
        tensors, kept = rest[: count * _TENSORS], rest[count * _TENSORS :]
        x, z = xz.chunk(2, dim=-1)
        dxz = torch.empty_like(xz)
        dx, dz = dxz.chunk(2, dim=-1)
        dgated = torch.zeros_like(total) if dgated is None else dgated
        torch.ops.aten.silu_backward.grad_input(dgated * total, z, grad_input=dz)
        dtotal = F.silu(z).mul_(dgated)
        gradients: list[Tensor | None] = []
        for index, reverse in enumerate(ctx.reverses):
            core = _Core(tensors[index * _TENSORS : (index + 1) * _TENSORS], reverse, mask, segments)
            own, more = core.backward(x, dtotal, dlasts[index], *kept[2 * index : 2 * index + 2])
            dx.copy_(own) if index == 0 else dx.add_(own)
            bias = tensors[index * _TENSORS + 1]
            gradients += [more[0], None if bias is None else more[1], *more[2:]]
        return dxz, None, None, None, None, *gradients


def mamba_inner_fused(
    xz: Tensor, directions: Sequence[Direction], *, mask: Tensor | None = None, segments: Tensor | None = None
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Arguments and results as :func:`genossm.kernels.mamba_inner.mamba_inner`; what :func:`fits` says."""
    tensors = [v for core in directions for v in (*core[:7], *core[8:])]
    # inside the function parameters ask for gradients under no_grad, too, and gradients are always off
    save = torch.is_grad_enabled() and any(v is not None and v.requires_grad for v in (xz, *tensors))
    gated, *lasts = _Inner.apply(xz, mask, segments, tuple(core.reverse for core in directions), save, *tensors)
    x = xz.chunk(2, dim=-1)[0]
    real = x if mask is None else x * mask[..., None]
    taps = [
        final_taps(real, core.conv_weight.shape[1] - 1, core.taps, mask, segments, core.reverse) for core in directions
    ]
    return gated, list(zip(taps, lasts, strict=True))
