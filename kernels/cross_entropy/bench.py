"""The head and loss of a vocabulary of 16 as ``genossm bench kernels`` runs it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genossm.kernels.benchmark import D_MODEL, Case, Entrant, Outputs, Work, noise, same_inputs
from genossm.kernels.cross_entropy import cross_entropy
from genossm.kernels.cross_entropy.reference import cross_entropy_ref

VOCABULARY = 16


def inputs(seqlen: int) -> dict[str, Tensor]:
    """hidden (1, seqlen, D_MODEL), weight, labels of which every eighth is ignored."""
    labels = torch.arange(seqlen).remainder(7).add(3)
    labels[::8] = -100
    return {
        "hidden": noise(1, seqlen, D_MODEL, seed=1),
        "weight": noise(VOCABULARY, D_MODEL, seed=2, scale=D_MODEL**-0.5),
        "labels": labels[None],
    }


def _run(hidden: Tensor, weight: Tensor, labels: Tensor) -> Outputs:
    return cross_entropy(hidden, weight, labels)


def _reference(hidden: Tensor, weight: Tensor, labels: Tensor) -> Outputs:
    return cross_entropy_ref(hidden, weight, labels)


def _torch(hidden: Tensor, weight: Tensor, labels: Tensor) -> Outputs:
    return F.cross_entropy(F.linear(hidden, weight).flatten(0, 1), labels.flatten(), reduction="none")


def forward_work(seqlen: int, dim: int = D_MODEL) -> Work:
    """The product with the head, and softmax over it."""
    return Work((dim + 3) * VOCABULARY * seqlen, VOCABULARY * seqlen, (4 * dim + 8 + 4) * seqlen)


def backward_work(seqlen: int, dim: int = D_MODEL) -> Work:
    """The logits again, the gradients of hidden and weight."""
    return Work((3 * dim + 5) * VOCABULARY * seqlen, VOCABULARY * seqlen, (8 * dim + 8 + 4) * seqlen)


CASE = Case(
    "cross_entropy", inputs, _run, _reference, forward_work, backward_work,
    activations=("hidden", "weight"), entrants=(Entrant("torch linear + loss", same_inputs(inputs, _torch)),),
)  # fmt: skip
