"""Cross entropy of a linear head with a vocabulary of at most 16: logits live in registers and are never stored."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.cross_entropy.reference import cross_entropy_blocked, cross_entropy_ref
from genossm.kernels.cross_entropy.triton_op import LARGEST_VOCABULARY, cross_entropy_triton

BACKENDS: dict[str, Callable[..., Tensor]] = {
    "reference": cross_entropy_ref,
    "torch": cross_entropy_blocked,
    "triton": cross_entropy_triton,
}


def cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, bias: Tensor | None = None, ignore_index: int = -100
) -> Tensor:
    """Loss of every token, from the hidden states in front of the language-model head.

    Args:
        hidden: (..., d_model).
        weight: (vocabulary, d_model), at most 16 rows.
        labels: int64 (...), below the vocabulary's size, or ``ignore_index``.
        bias: (vocabulary,).
        ignore_index: the label of tokens without a loss.

    Returns:
        Losses (...) in nats, float32 (float64 for float64), 0 at ignored tokens.

    Raises:
        ValueError: shapes that do not fit together, labels that are not int64, or a larger vocabulary.
    """
    vocabulary, d_model = weight.shape
    if vocabulary > LARGEST_VOCABULARY:
        raise ValueError(f"cross_entropy takes a vocabulary of at most {LARGEST_VOCABULARY}, not {vocabulary}")
    if hidden.shape != (*labels.shape, d_model):
        raise ValueError(f"hidden must be {(*labels.shape, d_model)}, is {tuple(hidden.shape)}")
    if bias is not None and tuple(bias.shape) != (vocabulary,):
        raise ValueError(f"bias must be {(vocabulary,)}, is {tuple(bias.shape)}")
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64, is {labels.dtype}")
    run = backend.pick("cross_entropy", BACKENDS, "triton" if backend.default(hidden) == "triton" else "torch")
    return run(hidden, weight, labels, bias=bias, ignore_index=ignore_index)
