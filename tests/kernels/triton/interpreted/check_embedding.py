"""The embedding's Triton kernels against torch: rows and the table's gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from genossm.kernels.embedding import embedding, embedding_triton, triton_op
from genossm.kernels.targets import RowBlocks


@pytest.mark.parametrize("blocks", sorted({*triton_op.BLOCKS.values()}, key=repr), ids=repr)
@pytest.mark.parametrize(("shape", "vocabulary", "dim"), [((2, 3), 16, 5), ((1, 41), 12, 130)], ids=str)
def test_rows_and_gradient(
    shape: tuple[int, ...], vocabulary: int, dim: int, blocks: RowBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setitem(triton_op.BLOCKS, "interpreter", blocks)
    monkeypatch.setattr(triton_op, "GROUP", 2)
    weight, ids = torch.randn(vocabulary, dim, requires_grad=True), torch.randint(0, vocabulary, shape)
    y = embedding_triton(ids, weight)
    dy = torch.randn_like(y)
    assert torch.equal(y, F.embedding(ids, weight))
    (wanted,) = torch.autograd.grad(F.embedding(ids, weight.double()), weight, dy.double())
    (got,) = torch.autograd.grad(y, weight, dy)
    assert (got - wanted).abs().max() < 1e-6 * wanted.abs().max()


def test_half_precision_and_foreign_ids() -> None:
    weight = torch.randn(12, 8).half()
    y = embedding_triton(torch.tensor([3, 12]), weight)
    assert torch.equal(y[0], weight[3])
    assert y[1].isnan().all()


def test_misfits_are_named() -> None:
    embedding_triton(torch.tensor([0]), torch.randn(2, 2))
    with pytest.raises(ValueError, match=r"ids must be int64, is torch\.int32"):
        embedding(torch.zeros(2, dtype=torch.int32), torch.zeros(16, 4))
    with pytest.raises(ValueError, match="a vocabulary of at most 16, not 17"):
        embedding(torch.zeros(2, dtype=torch.int64), torch.zeros(17, 4))
