"""RMSNorm with a residual on the CPU; its Triton kernels are checked in tests/kernels/triton."""

from __future__ import annotations

import torch

from genossm.kernels.rms_norm import rms_norm


def test_definition_is_torchs_norm_of_the_sum() -> None:
    torch.manual_seed(0)
    x, residual, weight = torch.randn(2, 7, 12).double(), torch.randn(2, 7, 12).double(), torch.randn(12).double()
    y, total = rms_norm(x, weight, residual=residual, eps=1e-6)
    assert torch.equal(total, x + residual)
    assert (y - torch.nn.functional.rms_norm(x + residual, (12,), weight, 1e-6)).abs().max() < 1e-14
    y, total = rms_norm(x, weight)
    assert torch.equal(total, x)


def test_half_precision_is_normalised_in_float32() -> None:
    x = torch.full((1, 4), 300.0).half()  # its square is beyond float16
    y, _ = rms_norm(x, torch.ones(4).half())
    assert y.dtype == torch.float16
    assert (y - 1).abs().max() < 1e-3
