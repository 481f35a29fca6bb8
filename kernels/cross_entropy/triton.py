"""Cross entropy of a tiny vocabulary in Triton: the head's product, its softmax and the loss in one program.

A program takes ROWS tokens at their full width, the product with the weights (padded to 16 rows) goes to the tensor
cores, and backward computes it again: no logits are ever written. Outside the vocabulary a label gives NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def log_softmax(hidden, weight, bias_ptr, vocabulary, V: tl.constexpr):
    """(ROWS, V) log probabilities; minus infinity beyond the vocabulary."""
    v = tl.arange(0, V)
    bias = tl.load(bias_ptr + v, mask=v < vocabulary, other=0.0)
    logits = tl.dot(hidden, tl.trans(weight), input_precision="ieee") + bias[None, :]
    logits = tl.where((v < vocabulary)[None, :], logits, float("-inf"))
    highest = tl.max(logits, axis=1)
    total = tl.sum(tl.exp2((logits - highest[:, None]) * 1.4426950408889634), axis=1)
    return logits - (highest + tl.log2(total) * 0.6931471805599453)[:, None]


@triton.jit
def loss_forward(
    hidden_ptr, weight_ptr, bias_ptr, labels_ptr, loss_ptr, rows, dim, vocabulary, ignore,
    V: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The loss of every token."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, BLOCK)
    v = tl.arange(0, V)
    inside = (r < rows)[:, None] & (c < dim)[None, :]
    hidden = tl.load(hidden_ptr + r.to(tl.int64)[:, None] * dim + c[None, :], mask=inside, other=0.0)
    known = (v < vocabulary)[:, None] & (c < dim)[None, :]
    weight = tl.load(weight_ptr + v[:, None] * dim + c[None, :], mask=known, other=0.0)
    logs = log_softmax(hidden, weight, bias_ptr, vocabulary, V)
    label = tl.load(labels_ptr + r, mask=r < rows, other=ignore)
    loss = -tl.sum(tl.where(v[None, :] == label[:, None], logs, 0.0), axis=1)
    loss = tl.where((label >= 0) & (label < vocabulary), loss, float("nan"))
    tl.store(loss_ptr + r, tl.where(label == ignore, 0.0, loss), mask=r < rows)


@triton.jit
def loss_backward(
    dloss_ptr, hidden_ptr, weight_ptr, bias_ptr, labels_ptr, dhidden_ptr, dweight_ptr, dbias_ptr,
    rows, dim, vocabulary, ignore,
    V: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the hidden states; those of weight and bias as a sum a program."""
    c = tl.arange(0, BLOCK)
    v = tl.arange(0, V)
    known = (v < vocabulary)[:, None] & (c < dim)[None, :]
    weight = tl.load(weight_ptr + v[:, None] * dim + c[None, :], mask=known, other=0.0)
    dweight = tl.zeros((V, BLOCK), tl.float32)
    dbias = tl.zeros((V,), tl.float32)
    for i in range(GROUP):
        r = (tl.program_id(0) * GROUP + i) * ROWS + tl.arange(0, ROWS)
        inside = (r < rows)[:, None] & (c < dim)[None, :]
        at = r.to(tl.int64)[:, None] * dim + c[None, :]
        hidden = tl.load(hidden_ptr + at, mask=inside, other=0.0)
        label = tl.load(labels_ptr + r, mask=r < rows, other=ignore)
        dloss = tl.where(label == ignore, 0.0, tl.load(dloss_ptr + r, mask=r < rows, other=0.0))
        logs = log_softmax(hidden, weight, bias_ptr, vocabulary, V)
        hit = tl.where(v[None, :] == label[:, None], 1.0, 0.0)
        dlogits = (tl.exp2(logs * 1.4426950408889634) - hit) * dloss[:, None]
        narrow = dlogits.to(hidden.dtype)
        dhidden = tl.dot(narrow, weight, input_precision="ieee")
        tl.store(dhidden_ptr + at, dhidden.to(dhidden_ptr.dtype.element_ty), mask=inside)
        dweight += tl.dot(tl.trans(narrow), hidden, input_precision="ieee")
        dbias += tl.sum(dlogits, axis=0)
    program = tl.program_id(0).to(tl.int64)
    tl.store(dweight_ptr + (program * V + v[:, None]) * dim + c[None, :], dweight, mask=known | (c < dim)[None, :])
    tl.store(dbias_ptr + program * V + v, dbias)
