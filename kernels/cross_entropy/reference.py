"""Cross entropy of a linear head with a tiny vocabulary: the definition, in plain PyTorch.

logits_t = weight hidden_t + bias,   loss_t = log sum_v exp(logits_tv) - logits_t[label_t],   0 where ignored
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

BLOCK = 8192
"""Tokens whose logits exist at a time."""


def cross_entropy_ref(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, bias: Tensor | None = None, ignore_index: int = -100
) -> Tensor:
    """Arguments and results as :func:`genossm.kernels.cross_entropy.cross_entropy`."""
    return _losses(hidden, weight, labels.flatten(), bias, ignore_index).view(labels.shape)


def cross_entropy_blocked(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, bias: Tensor | None = None, ignore_index: int = -100
) -> Tensor:
    """The same block by block: backward computes the logits of a block again, so none are kept."""
    flat, tokens = hidden.reshape(-1, hidden.shape[-1]), labels.flatten()
    losses = [
        checkpoint(
            _losses, flat[i : i + BLOCK], weight, tokens[i : i + BLOCK], bias, ignore_index,
            use_reentrant=False, preserve_rng_state=False,
        )
        for i in range(0, tokens.numel(), BLOCK)
    ]  # fmt: skip
    return torch.cat(losses).view(labels.shape) if losses else hidden.new_zeros(labels.shape)


def _losses(hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, ignore_index: int) -> Tensor:
    logits = F.linear(hidden.reshape(-1, hidden.shape[-1]), weight, bias)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
