"""RMSNorm with a residual in Triton: a program holds ROWS whole rows of BLOCK >= dim numbers, so it reads each once."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def norm_forward(
    x_ptr, residual_ptr, weight_ptr, y_ptr, total_ptr, scale_ptr, rows, dim, eps,
    RESIDUAL: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y, the sum (with a residual), and 1 / root mean square of each row."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, BLOCK)
    inside = (r < rows)[:, None] & (c < dim)[None, :]
    at = r.to(tl.int64)[:, None] * dim + c[None, :]
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if RESIDUAL:
        x += tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
        x = x.to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + at, x, mask=inside)
        x = x.to(tl.float32)
    weight = tl.load(weight_ptr + c, mask=c < dim, other=0.0)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=1) / dim + eps)
    y = x * scale[:, None] * weight[None, :]
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)
    tl.store(scale_ptr + r, scale, mask=r < rows)


@triton.jit
def norm_backward(
    dy_ptr, dtotal_ptr, x_ptr, weight_ptr, scale_ptr, dx_ptr, dweight_ptr, rows, dim,
    MORE: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the sum (MORE: plus that which comes along the residual stream); dweight as a sum a program."""
    c = tl.arange(0, BLOCK)
    weight = tl.load(weight_ptr + c, mask=c < dim, other=0.0)
    dweight = tl.zeros((ROWS, BLOCK), tl.float32)
    for i in range(GROUP):
        r = (tl.program_id(0) * GROUP + i) * ROWS + tl.arange(0, ROWS)
        inside = (r < rows)[:, None] & (c < dim)[None, :]
        at = r.to(tl.int64)[:, None] * dim + c[None, :]
        scale = tl.load(scale_ptr + r, mask=r < rows, other=0.0)
        normal = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32) * scale[:, None]
        dy = tl.load(dy_ptr + at, mask=inside, other=0.0).to(tl.float32)
        dweight += dy * normal
        dy *= weight[None, :]
        along = tl.sum(dy * normal, axis=1) / dim
        dx = (dy - normal * along[:, None]) * scale[:, None]
        if MORE:
            dx += tl.load(dtotal_ptr + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=inside)
    tl.store(dweight_ptr + tl.program_id(0).to(tl.int64) * dim + c, tl.sum(dweight, axis=0), mask=c < dim)
