"""The cross entropy's Triton kernels against the float64 definition: losses and every gradient."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from genossm.kernels.cross_entropy import cross_entropy_ref, cross_entropy_triton, triton_op
from genossm.kernels.targets import RowBlocks
from tests.kernels.conftest import relative_errors


def losses_and_gradients(run, inputs: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    leaves = {name: value.to(dtype).requires_grad_() for name, value in inputs.items()}
    loss = run(**leaves)
    weights = torch.arange(1, loss.numel() + 1).view_as(loss) / loss.numel()
    gradients = torch.autograd.grad((loss * weights).sum(), list(leaves.values()))
    return {"loss": loss, **{f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}}


def errors(shape: tuple[int, ...], vocabulary: int, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    torch.manual_seed(0)
    shapes = {"hidden": shape, "weight": (vocabulary, shape[-1]), "bias": (vocabulary,)}
    inputs = {name: torch.randn(size).to(dtype) for name, size in shapes.items()}
    labels = torch.randint(0, vocabulary, shape[:-1])
    labels[..., ::3] = -100
    truth = losses_and_gradients(partial(cross_entropy_ref, labels=labels), inputs, torch.float64)
    return relative_errors(truth, losses_and_gradients(partial(cross_entropy_triton, labels=labels), inputs, dtype))


@pytest.mark.parametrize(("shape", "vocabulary"), [((2, 2, 1), 16), ((2, 37, 5), 12), ((1, 70, 33), 16)], ids=str)
def test_losses_and_gradients(shape: tuple[int, ...], vocabulary: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_op, "GROUP", 2)
    assert max(errors(shape, vocabulary).values()) < 2e-6


@pytest.mark.parametrize("blocks", sorted({*triton_op.BLOCKS.values()}, key=repr), ids=repr)
def test_shipped_block_shapes(monkeypatch: pytest.MonkeyPatch, blocks: RowBlocks) -> None:
    monkeypatch.setitem(triton_op.BLOCKS, "interpreter", blocks)
    assert max(errors((1, 75, 130), 16).values()) < 2e-6


def test_half_precision() -> None:
    """float16 only: the interpreter of Triton 3.9 multiplies the bit patterns of bfloat16 matrices."""
    assert max(errors((2, 9, 24), 16, torch.float16).values()) < 3e-3


def test_a_foreign_label_is_not_a_number() -> None:
    loss = cross_entropy_triton(torch.randn(3, 8), torch.randn(12, 8), torch.tensor([0, 12, -100]))
    assert loss.isnan().tolist() == [False, True, False]
    assert loss[2] == 0
