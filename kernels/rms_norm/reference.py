"""RMSNorm with the residual added first: the definition, in plain PyTorch.

    s = x + residual,   y = weight s / sqrt(mean(s^2) + eps)        (arXiv:1910.07467, equation 4)

Half precision is normalised in float32, as every published model does it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm_ref(
    x: Tensor, weight: Tensor, *, residual: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Arguments and results as :func:`genossm.kernels.rms_norm.rms_norm`."""
    total = x if residual is None else (x + residual).to(residual.dtype)
    wide = total if total.dtype == torch.float64 else total.float()
    y = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight.to(wide.dtype)
    return y.to(x.dtype), total
