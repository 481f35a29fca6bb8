"""The embedding of a vocabulary of 16 as ``genossm bench kernels`` runs it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels.benchmark import D_MODEL, Case, Entrant, Outputs, Work, noise, same_inputs
from genossm.kernels.embedding import embedding
from genossm.kernels.embedding.reference import embedding_ref

VOCABULARY = 16


def inputs(seqlen: int) -> dict[str, Tensor]:
    """ids (1, seqlen), weight."""
    ids = torch.arange(seqlen).mul(7).remainder(VOCABULARY)
    return {"ids": ids[None], "weight": noise(VOCABULARY, D_MODEL, seed=1)}


def _run(ids: Tensor, weight: Tensor) -> Outputs:
    return embedding(ids, weight)


def _reference(ids: Tensor, weight: Tensor) -> Outputs:
    return embedding_ref(ids, weight)


def _torch(ids: Tensor, weight: Tensor) -> Outputs:
    return F.embedding(ids, weight)


def forward_work(seqlen: int, dim: int = D_MODEL) -> Work:
    """Rows are copied."""
    return Work(0, 0, (8 + 4 * dim) * seqlen)


def backward_work(seqlen: int, dim: int = D_MODEL) -> Work:
    """Rows are added up."""
    return Work(seqlen * dim, 0, (8 + 4 * dim) * seqlen)


CASE = Case(
    "embedding", inputs, _run, _reference, forward_work, backward_work,
    activations=("weight",), entrants=(Entrant("torch embedding", same_inputs(inputs, _torch)),),
)  # fmt: skip
