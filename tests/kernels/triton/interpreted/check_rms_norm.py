"""RMSNorm's Triton kernels against the float64 definition: outputs and every gradient."""

from __future__ import annotations

import pytest
import torch

from genossm.kernels.rms_norm import rms_norm, rms_norm_ref, rms_norm_triton, triton_op
from genossm.kernels.targets import RowBlocks
from tests.kernels.conftest import outputs_and_gradients, relative_errors


def errors(shape: tuple[int, ...], with_residual: bool, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    torch.manual_seed(0)
    inputs = {"x": torch.randn(shape).to(dtype), "weight": torch.randn(shape[-1]).to(dtype)}
    if with_residual:
        inputs["residual"] = torch.randn(shape).to(dtype)
    truth = outputs_and_gradients(rms_norm_ref, inputs, torch.float64, None)
    return relative_errors(truth, outputs_and_gradients(rms_norm_triton, inputs, dtype, None))


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 37, 5), (3, 11, 16), (2, 3, 33)], ids=str)
def test_outputs_and_gradients(shape: tuple[int, ...], with_residual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_op, "GROUP", 2)
    assert max(errors(shape, with_residual).values()) < 2e-6


@pytest.mark.parametrize("blocks", sorted({*triton_op.BLOCKS.values()}, key=repr), ids=repr)
def test_shipped_block_shapes(monkeypatch: pytest.MonkeyPatch, blocks: RowBlocks) -> None:
    monkeypatch.setitem(triton_op.BLOCKS, "interpreter", blocks)
    assert max(errors((1, 150, 130), True).values()) < 2e-6


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)], ids=str)
def test_half_precision(dtype: torch.dtype, bound: float) -> None:
    assert max(errors((2, 5, 24), True, dtype).values()) < bound  # the loss weights of the helper are exact to 256


def test_a_wider_residual_stays_wide() -> None:
    x, residual = torch.randn(4, 8).bfloat16().requires_grad_(), torch.randn(4, 8).requires_grad_()
    y, total = rms_norm_triton(x, torch.ones(8), residual=residual)
    assert (y.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    gradients = torch.autograd.grad(total.sum() + y.float().sum(), (x, residual))
    assert [g.dtype for g in gradients] == [torch.bfloat16, torch.float32]


def test_wrong_shapes_are_named() -> None:
    rms_norm_triton(torch.randn(1, 8), torch.ones(8))
    with pytest.raises(ValueError, match=r"weight must be \(8,\), is \(7,\)"):
        rms_norm(torch.randn(1, 8), torch.ones(7))
    with pytest.raises(ValueError, match=r"residual must be \(1, 8\), is \(2, 8\)"):
        rms_norm(torch.randn(1, 8), torch.ones(8), residual=torch.zeros(2, 8))
