"""Embedding of a vocabulary of at most 16, with a gradient that is the same in every run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genossm.kernels import backend
from genossm.kernels.embedding.reference import embedding_ref
from genossm.kernels.embedding.triton_op import LARGEST_VOCABULARY, embedding_triton

BACKENDS: dict[str, Callable[..., Tensor]] = {
    "reference": embedding_ref,
    "torch": embedding_ref,
    "triton": embedding_triton,
}


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """Rows of a table.

    Args:
        ids: int64 (...), below the vocabulary's size.
        weight: (vocabulary, d_model), at most 16 rows.

    Returns:
        (..., d_model) in weight's dtype.

    Raises:
        ValueError: ids that are not int64, or a larger vocabulary.
    """
    if ids.dtype != torch.int64:
        raise ValueError(f"ids must be int64, is {ids.dtype}")
    if weight.shape[0] > LARGEST_VOCABULARY:
        raise ValueError(f"embedding takes a vocabulary of at most {LARGEST_VOCABULARY}, not {weight.shape[0]}")
    run = backend.pick("embedding", BACKENDS, "triton" if backend.default(weight) == "triton" else "torch")
    return run(ids, weight)
