"""Embedding of a tiny vocabulary in Triton: backward sums the rows of each token by a product with one-hot rows."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def lookup(ids_ptr, weight_ptr, y_ptr, rows, dim, vocabulary, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """y = weight[ids]; NaN where an id is outside the table."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (r < rows)[:, None] & (c < dim)[None, :]
    ids = tl.load(ids_ptr + r, mask=r < rows, other=0)
    known = (ids >= 0) & (ids < vocabulary)
    y = tl.load(weight_ptr + ids[:, None] * dim + c[None, :], mask=inside & known[:, None], other=float("nan"))
    tl.store(y_ptr + r.to(tl.int64)[:, None] * dim + c[None, :], y, mask=inside)


@triton.jit
def scatter(
    ids_ptr, dy_ptr, dweight_ptr, rows, dim,
    V: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums of dy by id, over GROUP blocks of ROWS tokens."""
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    v = tl.arange(0, V)
    total = tl.zeros((V, BLOCK), tl.float32)
    for i in range(GROUP):
        r = (tl.program_id(0) * GROUP + i) * ROWS + tl.arange(0, ROWS)
        inside = (r < rows)[:, None] & (c < dim)[None, :]
        ids = tl.load(ids_ptr + r, mask=r < rows, other=-1)
        dy = tl.load(dy_ptr + r.to(tl.int64)[:, None] * dim + c[None, :], mask=inside, other=0.0)
        hit = tl.where(v[:, None] == ids[None, :], 1.0, 0.0).to(dy.dtype)
        total += tl.dot(hit, dy, input_precision="ieee")
    at = (tl.program_id(0).to(tl.int64) * V + v[:, None]) * dim + c[None, :]
    tl.store(dweight_ptr + at, total, mask=(v < V)[:, None] & (c < dim)[None, :])
