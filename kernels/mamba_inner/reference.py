"""The inside of a Mamba block: the definition, from the operators that it is made of.

    u_i  = silu(conv_i(x)),   (r_i, B_i, C_i) = x_proj_i u_i,   y_i = selective_scan(u_i, dt_proj_i r_i, A_i, B_i, C_i)
    y    = (sum_i y_i) silu(z)

over the directions i (Mamba, arXiv:2312.00752, figure 3; both directions with tied projections: Caduceus,
arXiv:2403.03234, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Direction(NamedTuple):
    """One core: its parameters, the way it reads, and what it carries in.

    Attributes:
        conv_weight, conv_bias: (d_inner, d_conv) and (d_inner,) or None.
        x_proj: (dt_rank + 2 * d_state, d_inner).
        dt_proj, dt_bias: (d_inner, dt_rank) and (d_inner,).
        A: (d_inner, d_state), negative.
        D: (d_inner,).
        reverse: read from the last token to the first.
        taps, state: (batch, d_conv - 1, d_inner) and (batch, d_inner, d_state), None for zeros.
    """

    conv_weight: Tensor
    conv_bias: Tensor | None
    x_proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor
    reverse: bool = False
    taps: Tensor | None = None
    state: Tensor | None = None


def mamba_inner_ref(
    xz: Tensor, directions: Sequence[Direction], *, mask: Tensor | None = None, segments: Tensor | None = None
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Arguments and results as :func:`genossm.kernels.mamba_inner.mamba_inner`."""
    from genossm.kernels.causal_conv1d import causal_conv1d
    from genossm.kernels.selective_scan import selective_scan

    x, z = xz.chunk(2, dim=-1)
    total, states = None, []
    for core in directions:
        where: Any = {"mask": mask, "segments": segments, "reverse": core.reverse}
        u, taps = causal_conv1d(x, core.conv_weight, core.conv_bias, initial_taps=core.taps, **where)
        rank, d_state = core.dt_proj.shape[1], core.A.shape[1]
        dt, B, C = F.linear(u, core.x_proj).split([rank, d_state, d_state], dim=-1)
        y, h = selective_scan(
            u, F.linear(dt, core.dt_proj), core.A, B, C, D=core.D, dt_bias=core.dt_bias, initial_state=core.state,
            **where,
        )  # fmt: skip
        total = y if total is None else total + y
        states.append((taps, h))
    assert total is not None
    return total * F.silu(z), states
